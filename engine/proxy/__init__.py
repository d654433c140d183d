"""What the OpenAI API needs to hand a request to a worker and the worker's answer to the client."""
