"""A minimal worker: one queue, a benchmark dataset, and payloads of a class that go to the model as a form."""

from vastai import BenchmarkConfig, HandlerConfig, LogActionConfig, Worker, WorkerConfig  # isort: skip  the line

import base64
import os


class Upload:
    """A file for the model, from JSON."""

    def __init__(self, name, content):
        self.name = name
        self.content = content

    @classmethod
    def for_test(cls):
        return cls("test.bin", b"1234")

    @classmethod
    def from_json_msg(cls, json_msg):
        return cls(json_msg["name"], base64.b64decode(json_msg["content"]))

    def generate_payload_json(self):
        return {"name": self.name}

    def generate_payload_multipart(self):
        return {
            "file": (self.name, self.content, "application/octet-stream"),
            "note": "a note",
            "tags": ["a", "b"],
            "options": {"deep": True},
            "fast": True,
            "absent": None,
        }

    def count_workload(self):
        return float(len(self.content))


CONFIG = WorkerConfig(
    model_server_url="http://127.0.0.1",
    model_server_port=int(os.environ["MODEL_PORT"]),
    model_log_file="model.log",
    model_healthcheck_url="/health",
    log_action_config=LogActionConfig(on_load=["model ready"], on_error=["model failed"]),
    handlers=[
        HandlerConfig(
            route="/json",
            max_queue_time=600.0,
            benchmark_config=BenchmarkConfig(
                dataset=[{"seconds": 0.002}, {"seconds": 0.003}], runs=2, do_warmup=False
            ),
        ),
        HandlerConfig(route="/form", payload_class=Upload, max_queue_time=600.0),
    ],
)

if __name__ == "__main__":
    Worker(CONFIG).run()
