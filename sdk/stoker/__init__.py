"""The client of stoker, the open serverless GPU engine."""
