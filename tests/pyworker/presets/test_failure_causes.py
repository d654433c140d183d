"""The log of a failed start names the cause. Transcripts are from real runs, single lines imitate messages of the servers."""

import re
from pathlib import Path

import pytest

from stoker_pyworker import presets
from stoker_pyworker.config import LogActionConfig
from stoker_pyworker.model.readiness import LogWatch
from stoker_pyworker.model.server.failure_causes import CauseFinder
from stoker_pyworker.presets.base.causes import COMMON

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))


def cause(preset, text):
    finder = CauseFinder((*presets.load(preset).causes, *COMMON))
    for line in text.splitlines():
        finder.see(line)
    return None if finder.found is None else finder.found[0].name


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_a_recorded_log_reveals_its_cause(path):
    preset, expected = path.name.removesuffix(".txt").split(".")
    found = cause(preset, path.read_text())
    assert found == (None if expected == "healthy" else expected)


@pytest.mark.parametrize("name", presets.NAMES)
def test_the_table_counts_the_causes_that_real_logs_reveal(name):
    page = (Path(__file__).parents[3] / "docs" / "reference" / "presets.md").read_text()
    (row,) = (line.split(" | ") for line in page.splitlines() if line.startswith(f"| `{name}` | "))
    names = [path.name for path in TRANSCRIPTS if path.name.startswith(f"{name}.")]
    count = str(len(names) - (f"{name}.healthy.txt" in names) or "none")
    assert row[8] == ("as `vllm`" if name in {"embeddings", "whisper"} else count)


def test_an_unknown_cause_is_explained_by_the_first_error_of_the_log():
    finder = CauseFinder((*presets.load("vllm").causes, *COMMON))
    for line in (TRANSCRIPTS[0].parent / "vllm.crash.out").read_text().splitlines():
        finder.see(line)
    assert finder.found is None
    assert "Unsupported CPU attention configuration" in finder.error


def test_the_first_error_of_a_configuration_is_what_is_wrong_with_it():
    finder = CauseFinder(COMMON)
    finder.see("pydantic_core._pydantic_core.ValidationError: 1 validation error for VllmConfig")
    finder.see(
        "  Value error, Cannot find the config file for awq [type=value_error, input_value=ArgsKwargs("
    )
    assert finder.error.startswith("  Value error, Cannot find the config file for awq")


def test_a_warning_that_quotes_an_error_does_not_explain_an_exit():
    finder = CauseFinder(COMMON)
    finder.see(
        "WARNING [system_utils.py:255] Found ulimit of 20000. This can cause errors like `OSError: [Errno 24] Too many"
    )
    finder.see("(EngineCore pid=7) ERROR 12-01 03:05:03 [core.py:1510] ValueError: the real one")
    assert finder.error.endswith("ValueError: the real one")


@pytest.mark.parametrize(
    ("line", "phase"),
    [
        ("model-00001-of-00004.safetensors:  12%|#2  | 600M/4.98G [00:10<01:20, 54.2MB/s]", "download"),
        ("Fetching 12 files:   8%|8 | 1/12 [00:02<00:30,  2.7s/it]", "download"),
        (
            "common_download_file_single_online: trying to download model from https://huggingface.co/x",
            "download",
        ),
        ("stoker: pull: pulling 6a0746a1ec1a", "download"),
        ("INFO text_generation_launcher: Starting check and download process for x", "download"),
        ("INFO [weight_utils.py:296] Time spent downloading weights for x: 42.1 seconds", "load"),
        ("Loading safetensors checkpoint shards:  25% Completed | 1/4 [00:01<00:03,  1.2s/it]", "load"),
        ("llama_model_loader: loaded meta data with 34 key-value pairs", "load"),
        ("stoker: pull: success", "load"),
        ("INFO text_generation_launcher: Successfully downloaded weights for x", "load"),
        ("INFO:     Application startup complete.", None),
        ("GET /health 200 OK", None),
    ],
)
def test_lines_of_the_log_tell_the_phase_of_the_load(line, phase):
    assert phases([line]) == ([] if phase is None else [phase])


def phases(lines):
    entered = []
    watch = LogWatch(
        Path(),
        LogActionConfig(),
        loaded=list,
        failed=lambda _: None,
        read_error=lambda _: None,
        phase=lambda phase: entered.append(phase) if entered[-1:] != [phase] else None,
    )
    for line in lines:
        watch.evaluate(line)
    return entered


def test_a_real_vllm_that_downloads_loads_once_and_tells_how_long_the_download_took():
    lines = (TRANSCRIPTS[0].parent / "vllm.healthy.txt").read_text().splitlines()
    assert phases(lines) == ["download", "load"]
    (told,) = (found for line in lines if (found := re.search(presets.load("vllm").downloaded, line)))
    assert told["seconds"] == "0.796582"


LINES = [
    ("vllm", "gated_model", "OSError: You are trying to access a gated repo."),
    ("vllm", "gated_model", "Access to model meta-llama/Llama-3.1-8B-Instruct is restricted. You must have access"),
    ("vllm", "unknown_model", "OSError: nope/nope is not a local folder and is not a valid model identifier listed on"),
    ("vllm", "unknown_model", "OSError: Repo id must be in the form 'repo_name' or 'namespace/repo_name': '/models/nope'."),
    ("vllm", "unknown_model", "huggingface_hub.errors.RemoteEntryNotFoundError: 404 Client Error."),
    ("vllm", "token", "requests.exceptions.HTTPError: 401 Client Error: Unauthorized for url: https://huggingface.co/x"),
    ("vllm", "gpu_memory", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.96 GiB. GPU 0 has"),
    ("vllm", "cache_memory", "ValueError: No available memory for the cache blocks. Try increasing"),
    ("vllm", "memory_share", "ValueError: Free memory on device (3.22/4.0 GiB) on startup is less than desired GPU"),
    ("vllm", "cache_memory", "(16.00 GiB KV cache is needed, which is larger than the available KV cache memory"),
    ("vllm", "cache_memory", "Available memory on node 0 (20/23 GiB) on kv cache allocation is less than requested memory for kv"),
    ("vllm", "context_too_long", "User-specified max_model_len (200000) is greater than the derived max_model_len"),
    ("vllm", "unsupported_model", "ValueError: Model architectures ['FooForCausalLM'] are not supported for now."),
    ("vllm", "driver", "RuntimeError: The NVIDIA driver on your system is too old (found version 11040)."),
    ("vllm", "driver", "RuntimeError: CUDA error: no kernel image is available for execution on the device"),
    ("vllm", "no_gpu", "RuntimeError: Failed to infer device type, please set the environment variable"),
    ("vllm", "gpu_type", "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0."),
    ("vllm", "gpu_count", "Total number of attention heads (14) must be divisible by tensor parallel size (4)."),
    ("vllm", "disk_full", "OSError: [Errno 28] No space left on device"),
    ("vllm", "port_taken", "OSError: [Errno 98] Address already in use"),
    ("vllm", "arguments", "vllm: error: unrecognized arguments: --max-modellen 4096"),
    ("vllm", "not_installed", "/usr/bin/python3: No module named vllm"),
    ("vllm", "shared_memory", "RuntimeError: unable to open shared memory object </torch_123> in read-write mode"),
    ("vllm", "network", "Failed to resolve 'huggingface.co' ([Errno -3] Temporary failure in name resolution)"),
    ("sglang", "cache_memory", "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static."),
    ("llama-server", "port_taken", "srv start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 8000"),
    ("llama-server", "gpu_memory", "ggml_backend_cuda_buffer_type_alloc_buffer: cudaMalloc failed: out of memory"),
    ("llama-server", "not_gguf", "gguf_init_from_reader: invalid magic characters: 'not ', expected 'GGUF'"),
    ("llama-server", "unsupported_model", "error loading model: unknown model architecture: 'foo'"),
    ("llama-server", "arguments", "error: invalid argument: --contxt"),
    ("ollama", "unknown_model", "stoker: the model cannot be pulled: pull model manifest: file does not exist"),
    ("ollama", "memory", "Error: model requires more system memory (24.0 GiB) than is available (7.6 GiB)"),
    ("tgi", "cache_memory", "RuntimeError: Not enough memory to handle 4096 prefill tokens. You need to decrease"),
    ("tgi", "arguments", 'Error: ArgumentValidation("`max_input_tokens must be < `max_total_tokens`")'),
    ("comfyui", "gpu_memory", "torch.cuda.OutOfMemoryError: CUDA out of memory."),
]  # fmt: skip


@pytest.mark.parametrize(("preset", "expected", "line"), LINES, ids=lambda value: str(value)[:30])
def test_a_single_line_reveals_its_cause(preset, expected, line):
    assert (
        cause(preset, f"INFO: loading\n(EngineCore pid=7) ERROR 09-28 15:47:24 [core.py:718] {line}\nbye")
        == expected
    )


def test_the_most_specific_cause_counts_whatever_comes_first():
    text = "huggingface_hub.errors.GatedRepoError: 401 Client Error.\nOSError: You are trying to access a gated repo."
    assert cause("vllm", "HTTPError: 401 Client Error: Unauthorized\n" + text) == "gated_model"


def test_a_warning_long_before_the_exit_is_no_cause():
    warning = "ModuleNotFoundError: No module named 'flash_attn'; using another backend\n"
    assert cause("vllm", warning + "INFO: loading\n" * 100) == "not_installed"
    assert cause("vllm", warning + "INFO: loading\n" * 500) is None


def test_only_the_beginning_of_a_huge_line_is_searched():
    """Servers log their clients' prompts, and a pattern with `.*` takes quadratic time."""
    prompt = "x" * 5000
    assert cause("vllm", f"{prompt} torch.OutOfMemoryError: CUDA out of memory") is None
    assert phases([f"{prompt} loading weights"]) == []


@pytest.mark.parametrize("name", presets.NAMES)
def test_every_cause_has_a_remedy(name):
    for each in (*presets.load(name).causes, *COMMON):
        assert ": " in each.sentence or each.name == "network", each.name
        assert 40 < len(each.sentence) < 200
