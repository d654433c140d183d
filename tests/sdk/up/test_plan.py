"""The choice of machines for a model, its price, and the refusal before anything is rented."""

import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from market.query import matches, parse_filters
from stoker.errors import Invalid
from stoker.management.marketplace import FoundOffers
from stoker.management.records import OfferRecord
from stoker.preflight.model_config import read_shape
from stoker.preflight.sources import Model
from stoker.up.local_program import local_program
from stoker.up.plan import make_plan
from stoker.up.request import ON_START, UpRequest, add_terms, check_request, find_preset, raise_gpu_ram
from tests.sdk.preflight.test_published_sizes import PUBLISHED


def offer(number, name, gigabytes, dollars, gpus=1, **more):
    return {
        "id": number,
        "gpu_name": name,
        "num_gpus": gpus,
        "gpu_ram": gigabytes,
        "cpu_ram": 64_000.0,
        "hot_dollars_per_hour": dollars,
        "cold_dollars_per_hour": 0.01,
        "inet_down": 1000.0,
        "cuda_max_good": 13.0,
        **more,
    }


RTX_4090 = offer(1, "RTX 4090", 24_564, 0.40)
A100 = offer(2, "A100 SXM4", 81_920, 1.20)
H100 = offer(3, "H100 SXM", 81_559, 2.00)
FOUR_A100 = offer(4, "A100 SXM4", 81_920, 4.80, gpus=4)
TWO_H200 = offer(5, "H200", 143_771, 6.00, gpus=2)
CPU = offer(6, "CPU_L", 0, 0.30)


def market(*rows, kind="vast", url="https://engine.example.org"):
    """The engine's search over these rows, with the marketplace's own grammar."""

    async def search(text="", **group):
        filters = parse_filters(text)
        found = sorted(
            (row for row in rows if matches(filters, row)), key=lambda row: row["hot_dollars_per_hour"]
        )
        return FoundOffers(
            offers=[OfferRecord.model_validate(row) for row in found],
            market=kind,
            engine_url=url,
            reason="" if found else "no offer matches now",
        )

    return search


def model(name):
    shape = read_shape(PUBLISHED[name][0] | {"max_position_embeddings": 131_072})
    return Model(
        name=name, shape=shape, weights_bytes=shape.weights_bytes, download_bytes=shape.weights_bytes
    )


def asked(preset="vllm", name="meta-llama/Llama-3.1-8B", **more):
    return UpRequest(preset=find_preset(preset), endpoint="llm", model=name, **more)


LLAMA_8B, LLAMA_70B = model("meta-llama/Llama-3.1-8B"), model("meta-llama/Llama-3.1-70B")


async def test_an_8b_model_gets_the_cheapest_card_that_holds_it():
    plan = await make_plan(asked(), LLAMA_8B, market(RTX_4090, A100, H100))
    assert plan.offers[0].gpu_name == "RTX 4090"
    # GiB: weights 14.96, KV cache 1.00, activations 0.29, runtime 1.00; 17.25 / 0.9 = 19.17 = 19,627 MiB
    assert plan.search == "num_gpus=1 gpu_ram>=19.7 cuda_max_good>=12.8 inet_down>=200"
    assert plan.workergroup["gpu_ram"] == 19.7
    text = "\n".join(plan.lines(max_workers=2))
    assert "weights 14.96 GiB" in text
    assert "$0.4/h while it serves, $0.01/h while stopped; at most 2 workers, $0.8/h" in text
    # 16.06 GB at 1000 Mbit/s
    assert "download   2.1 min for the weights at 1000 Mbit/s" in text


async def test_a_70b_model_on_a_24_gb_card_is_refused_before_anything_is_rented():
    with pytest.raises(Invalid) as refused:
        await make_plan(
            asked(name=LLAMA_70B.name, search="gpu_name=RTX_4090"), LLAMA_70B, market(RTX_4090, A100)
        )
    said = str(refused.value)
    assert said.startswith("nothing was rented: meta-llama/Llama-3.1-70B needs 15")
    assert "weights 131.4, KV cache 2.5 for 8192 tokens" in said
    assert "the largest machine that matches is 1x RTX 4090 with 24.0 GiB a GPU" in said
    assert "Take a quantised model, or more memory with --search or --gpus" in said


@pytest.mark.parametrize(("gpus", "context"), [(1, None), (None, None), (None, 100_000)])
async def test_no_shorter_context_is_proposed_where_the_weights_alone_are_too_large(gpus, context):
    """131 GiB of weights do not fit on one GPU of 24 GiB, nor a fourth of them on each of four."""
    four = offer(7, "RTX 4090", 24_564, 1.60, gpus=4)
    with pytest.raises(Invalid, match="Take a quantised model, or more memory"):
        await make_plan(asked(gpus=gpus, context=context), LLAMA_70B, market(RTX_4090, four))


async def test_a_shorter_context_is_proposed_where_the_weights_fit():
    with pytest.raises(Invalid, match="Take a shorter --context, a quantised model"):
        await make_plan(asked(context=100_000), LLAMA_8B, market(RTX_4090))


async def test_a_70b_model_is_split_over_the_cheapest_number_of_gpus():
    plan = await make_plan(asked(name=LLAMA_70B.name), LLAMA_70B, market(RTX_4090, A100, FOUR_A100, TWO_H200))
    assert (plan.gpus, plan.offers[0].gpu_name) == (4, "A100 SXM4")
    assert "num_gpus=4" in plan.search
    assert "-e MODEL_GPUS=4" in plan.template["env"]
    plan = await make_plan(asked(name=LLAMA_70B.name, gpus=2), LLAMA_70B, market(FOUR_A100, TWO_H200))
    assert plan.offers[0].gpu_name == "H200"


@pytest.mark.parametrize("search", ["num_gpus=2", "num_gpus>=2 gpu_ram>=10"])
async def test_the_number_of_gpus_in_the_search_counts(search):
    plan = await make_plan(asked(name=LLAMA_70B.name, search=search), LLAMA_70B, market(FOUR_A100, TWO_H200))
    assert plan.gpus == 2
    assert {each.gpu_name for each in plan.offers} <= {"A100 SXM4", "H200"}


async def test_a_lower_bound_on_memory_is_raised_and_a_higher_one_kept():
    plan = await make_plan(asked(search="gpu_ram>=10"), LLAMA_8B, market(RTX_4090, H100))
    assert plan.search.startswith("gpu_ram>=19.7 num_gpus=1")
    plan = await make_plan(asked(search="gpu_ram>=80"), LLAMA_8B, market(RTX_4090, H100))
    assert plan.search.startswith("gpu_ram>=80 num_gpus=1")
    assert raise_gpu_ram("gpu_ram=24 dph<1", 30) == "gpu_ram=24 dph<1"
    assert (
        add_terms("num_gpus=2", {"num_gpus": "num_gpus=1", "gpu_ram": "gpu_ram>=8"})
        == "num_gpus=2 gpu_ram>=8"
    )


async def test_a_card_that_the_search_names_and_that_is_too_small_is_refused():
    with pytest.raises(Invalid, match="nothing was rented"):
        await make_plan(asked(name=LLAMA_70B.name, search="gpu_ram=24.564"), LLAMA_70B, market(RTX_4090))


async def test_more_context_needs_more_memory_and_more_than_the_model_has_is_refused():
    plan = await make_plan(asked(context=65_536), LLAMA_8B, market(RTX_4090, A100))
    assert plan.offers[0].gpu_name == "A100 SXM4"
    assert "-e MODEL_CONTEXT=65536" in plan.template["env"]
    with pytest.raises(Invalid, match="at most 131072 tokens"):
        await make_plan(asked(context=200_000), LLAMA_8B, market(A100))


async def test_llama_cpp_runs_on_a_cpu_where_there_is_no_gpu_and_vllm_does_not():
    small = model("HuggingFaceTB/SmolLM2-135M")
    plan = await make_plan(asked("llama-server", small.name), small, market(CPU, kind="host"))
    assert plan.on_cpu
    assert plan.search.startswith("gpu_ram=0 cpu_ram>=")
    assert plan.template["onstart"] == 'exec python -m stoker_pyworker.presets "$STOKER_PRESET"'
    with pytest.raises(
        Invalid,
        match="needs .* GiB on 1 GPU .*largest machine that matches is 1x CPU_L without a GPU.* --cpu",
    ):
        await make_plan(asked(name=small.name), small, market(CPU, kind="host"))


async def test_cpu_machines_that_are_all_rented_are_not_called_a_lack_of_gpus():
    small = model("HuggingFaceTB/SmolLM2-135M")
    request = asked("llama-server", small.name, cpu_only=True)
    with pytest.raises(
        Invalid, match="no machine without a GPU is free .* 1 others match, such as 1x RTX 4090"
    ):
        await make_plan(request, small, market(RTX_4090, kind="host"))


async def test_an_engine_on_loopback_rents_nothing_elsewhere():
    with pytest.raises(Invalid, match="cannot report to http://127.0.0.1:8080: set engine.public_url"):
        await make_plan(asked(), LLAMA_8B, market(RTX_4090, url="http://127.0.0.1:8080"))


async def test_a_preset_without_an_image_needs_one_on_a_rented_machine():
    ask = asked("comfyui", "")
    with pytest.raises(Invalid, match="--image is required on rented machines"):
        await make_plan(ask, None, market(RTX_4090))
    plan = await make_plan(asked("comfyui", "", image="org/comfyui:1"), None, market(RTX_4090))
    assert plan.template["image"] == "org/comfyui:1"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "--command is required"),
        ({"command": "python3 app.py"}, "MODEL_ROUTES=… is required"),
        ({"command": "python3 app.py", "variables": {"MODEL_ROUTES": "[{]"}}, "MODEL_ROUTES=… is required"),
    ],
)
def test_a_server_without_a_preset_is_described_before_anything_is_rented(given, message):
    with pytest.raises(Invalid, match=message):
        check_request(asked("http", "", **given))
    check_request(asked("http", "", command="python3 app.py", variables={"MODEL_ROUTES": "/predict"}))


@pytest.mark.parametrize("name", ["a/b", "", " llm", "x" * 201, "llm\n", "модель"])
def test_a_name_that_no_endpoint_may_have_is_refused_before_the_template_is_made(name):
    request = replace(asked(), endpoint=name)
    with pytest.raises(Invalid, match="--name: expected letters"):
        check_request(request)


def test_ollama_knows_its_model_by_its_own_name():
    alias = {"variables": {"MODEL_ALIAS": "small"}}
    assert asked("ollama", "qwen2.5:0.5b", **alias).served_model == "qwen2.5:0.5b"
    assert asked("vllm", "org/model", **alias).served_model == "small"


async def test_vllms_image_gets_the_packages_that_read_audio():
    plan = await make_plan(asked("whisper"), LLAMA_8B, market(RTX_4090))
    assert 'uv pip install --system --quiet "vllm[audio]"' in plan.template["onstart"]
    plan = await make_plan(asked("whisper", image="org/speech:1"), LLAMA_8B, market(RTX_4090))
    assert "audio" not in plan.template["onstart"], "an image of the user's has what it needs"


@pytest.mark.parametrize("has_curl", [True, False])
def test_the_start_command_installs_curl_only_where_it_is_missing(tmp_path, has_curl):
    """Programs of the image are stand-ins that say how they were called; curl answers with a script."""
    curl = "#!/bin/sh\necho 'echo \"$1\"'\n"
    apt = f'#!/bin/sh\necho "apt-get $*" >>{tmp_path}/apt\nln -sf {tmp_path}/curl {tmp_path}/bin/curl\n'
    (tmp_path / "bin").mkdir()
    for path, text in ((tmp_path / "curl", curl), (tmp_path / "bin" / "apt-get", apt)):
        path.write_text(text)
        path.chmod(0o755)
    for name in ("bash", "ln", "sh"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    if has_curl:
        (tmp_path / "bin" / "curl").symlink_to(tmp_path / "curl")
    environ = {
        "PATH": str(tmp_path / "bin"),
        "STOKER_PRESET": "vllm",
        "REPORT_ADDR": "https://engine.example",
    }
    done = subprocess.run(
        ["bash", "-c", ON_START], env=environ, capture_output=True, text=True, check=True, timeout=60
    )
    assert (done.stdout, (tmp_path / "apt").exists()) == ("vllm\n", not has_curl)


async def test_a_file_of_this_machine_is_not_promised_to_a_rented_one(tmp_path):
    with pytest.raises(Invalid, match="cannot read a file of this one"):
        await make_plan(asked(name=str(tmp_path)), LLAMA_8B, market(RTX_4090))


async def test_a_search_without_offers_gives_the_marketplaces_reason():
    with pytest.raises(Invalid, match="nothing was rented: no offer matches now"):
        await make_plan(asked(search="gpu_name=B200"), LLAMA_8B, market(RTX_4090))


async def test_the_template_quotes_what_the_user_gave_and_names_secrets_by_reference():
    request = asked(
        server_args=("--served-model-name", "my model"), variables={"A": "b c"}, secrets=("HF_TOKEN",)
    )
    plan = await make_plan(request, LLAMA_8B, market(RTX_4090))
    from market.query import parse_env

    env = parse_env(plan.template["env"])
    assert env["MODEL_ARGS"] == "--served-model-name 'my model'"
    assert (env["A"], env["HF_TOKEN"], env["MODEL_NAME"]) == ("b c", "secret:HF_TOKEN", LLAMA_8B.name)
    assert "/worker/bootstrap.sh" in plan.template["onstart"]


async def test_the_weights_stay_on_a_volume_of_the_account():
    plan = await make_plan(
        asked(cache="1234", search="machine_id=77"), None, market(A100 | {"machine_id": 77})
    )
    assert plan.workergroup["launch_args"].endswith("--link-volume 1234 --mount-path /models")
    assert "MODEL_CACHE=/models" in plan.template["env"]
    assert plan.notes == ()
    plan = await make_plan(asked(cache="1234:/data/hub"), None, market(A100))
    assert plan.workergroup["launch_args"].endswith("--link-volume 1234 --mount-path /data/hub")
    assert "MODEL_CACHE=/data/hub" in plan.template["env"]
    assert "machine_id" in plan.notes[0]


async def test_the_weights_stay_in_a_folder_of_the_own_machine():
    plan = await make_plan(asked(cache="weights"), None, market(A100, kind="host"))
    assert "MODEL_CACHE=volume:weights" in plan.template["env"]
    assert "volume" not in plan.workergroup["launch_args"]


@pytest.mark.parametrize(("cache", "kind"), [("weights", "vast"), ("12:models", "vast"), ("../x", "host")])
async def test_a_cache_that_cannot_be_attached_is_refused(cache, kind):
    with pytest.raises(Invalid, match="--cache: expected"):
        await make_plan(asked(cache=cache), None, market(A100, kind=kind))


async def test_a_worker_on_this_machine_runs_the_program_of_this_shell():
    here = market(CPU, kind="host", url="http://127.0.0.1:8080")
    wanted = asked("llama-server", "/m.gguf", gpu_ram_gb=0)
    plan = await make_plan(wanted, None, here, find_program=lambda preset: f"/opt/my bin/{preset.program[0]}")
    assert "'MODEL_COMMAND=/opt/my bin/llama-server'" in plan.template["env"]
    plan = await make_plan(asked("llama-server", "/m.gguf", command="/else"), None, here)
    assert "MODEL_COMMAND=/else" in plan.template["env"]
    rented = market(CPU, url="https://engine.example.org")
    plan = await make_plan(asked("llama-server", "org/m"), None, rented)
    assert "MODEL_COMMAND" not in plan.template["env"]


def test_a_program_is_found_where_the_shell_finds_it(tmp_path, monkeypatch):
    program = tmp_path / "bin dir" / "llama-server"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    assert local_program(find_preset("llama-server")) == f"'{program}'"
    assert local_program(find_preset("http")) == ""
    with pytest.raises(Invalid, match="nothing was rented: vllm is not installed on this machine"):
        local_program(find_preset("vllm"))
    (program.parent / "python3").symlink_to(sys.executable)
    with pytest.raises(Invalid, match="has no module llama_cpp.server"):
        local_program(find_preset("llama-cpp-python"))
