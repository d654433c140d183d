"""Chooses machines for a model and states the price, or refuses with the reason."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from stoker.errors import Invalid
from stoker.management.marketplace import FoundOffers
from stoker.management.records import OfferRecord
from stoker.preflight.memory import GIB, MIB, MemoryNeed, default_context, gpu_counts, memory_need
from stoker.preflight.sources import Model, local_path
from stoker.up.local_program import local_program
from stoker.up.request import CUDA_MIN, INET_DOWN_MIN, UpRequest, add_terms, disk_gb, raise_gpu_ram
from stoker_wire.presets import PresetSummary
from stoker_wire.security.loopback import is_loopback_url

SHOWN_OFFERS = 3
_EVERY_GPU_COUNT = (1, 2, 4, 8)

Search = Callable[..., Awaitable[FoundOffers]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The machines that fit, and what the endpoint will cost."""

    request: UpRequest
    model: Model | None
    need: MemoryNeed | None
    search: str
    gpus: int
    context: int | None
    disk_gb: float
    offers: list[OfferRecord]
    """That match, cheapest first."""
    on_cpu: bool
    local: bool
    """Whether the marketplace is the deployment's own machine."""
    notes: tuple[str, ...] = ()

    @property
    def template(self) -> dict[str, Any]:
        """The template to create."""
        return self.request.template(
            gpus=self.gpus, context=self.context, disk_gb=self.disk_gb, local=self.local
        )

    @property
    def workergroup(self) -> dict[str, Any]:
        """The workergroup's fields, without the template."""
        args = f"--disk {self.disk_gb:g} {self.request.volume_args(local=self.local)}".strip()
        fields: dict[str, Any] = {"search_params": self.search, "launch_args": args}
        if self.need is not None and not self.on_cpu:
            fields["gpu_ram"] = self.need.gpu_ram
        return fields

    def lines(self, max_workers: int) -> list[str]:
        """The plan for a person: memory, machines, prices, download."""
        best = self.offers[0]
        lines = []
        if self.model is not None:
            shape = self.model.shape
            size = f"{shape.parameters / 1e9:.2f} billion parameters, " if shape.parameters else ""
            weights = self.model.weights_bytes / GIB
            lines.append(
                f"model      {self.model.name}: {shape.architecture}, {size}weights {weights:.2f} GiB"
            )
        if self.need is not None:
            lines.append(f"memory     {self.need if not self.on_cpu else _ram_text(self.need)}")
            fits = None if self.on_cpu else self.need.requests_on(best.gpu_ram)
            if fits is not None:
                lines.append(
                    f"           a {best.kind} holds {fits} requests of {self.context} tokens at the same time"
                )
        lines.append(f"search     {self.search or '(every machine)'}, disk {self.disk_gb:g} GB")
        lines.append(f"offers     {len(self.offers)} match; the cheapest:")
        kinds: dict[tuple[str, float, float, float], int] = {}
        for offer in self.offers:
            kind = (offer.kind, offer.gpu_ram, offer.hot_dollars_per_hour, offer.cold_dollars_per_hour)
            kinds[kind] = kinds.get(kind, 0) + 1
        for (name, gpu_ram, running, stopped), count in list(kinds.items())[:SHOWN_OFFERS]:
            ram = f"{gpu_ram / 1024:.1f} GiB a GPU" if gpu_ram else "no GPU"
            several = f" ({count} of them)" if count > 1 else ""
            lines.append(
                f"           {name}, {ram}: ${running:.4g}/h running, ${stopped:.2g}/h stopped{several}"
            )
        hot, cold = best.hot_dollars_per_hour, best.cold_dollars_per_hour
        lines.append(
            f"cost       one worker ${hot:.4g}/h while it serves, ${cold:.2g}/h while stopped; "
            f"at most {max_workers} workers, ${hot * max_workers:.4g}/h at this price"
        )
        if (seconds := self._download_seconds(best)) is not None:
            lines.append(
                f"download   {seconds / 60:.1f} min for the weights at {best.inet_down:g} Mbit/s, once a machine"
            )
        return [*lines, *(f"note       {note}" for note in self.notes)]

    def _download_seconds(self, offer: OfferRecord) -> float | None:
        if self.model is None or not self.model.download_bytes or not offer.inet_down:
            return None
        return self.model.download_bytes * 8 / (offer.inet_down * 1e6)


async def make_plan(
    request: UpRequest,
    model: Model | None,
    search: Search,
    notes: tuple[str, ...] = (),
    *,
    find_program: Callable[[PresetSummary], str] = local_program,
) -> Plan:
    """The cheapest machines on which the model fits.

    Args:
        search: `client.marketplace.offers`.
        find_program: finds the model server, if the workers run on this machine.

    Raises:
        Invalid: no machine fits, with the reason and what to change; nothing was rented.
    """
    size = disk_gb(model.download_bytes if model else 0.0, request.disk_gb)
    args = f"--disk {size:g}"
    every = await search(request.search, launch_args=args)
    _check_reachable(request, every)
    local = every.market == "host"
    if local and is_loopback_url(every.engine_url) and not request.command:
        request = replace(request, command=find_program(request.preset))
    if request.volume_args(local=local) and "machine_id" not in request.search:
        notes = (
            *notes,
            "a volume belongs to one machine: add its machine_id to --search, else other machines are tried in vain",
        )
    context = None
    if model is not None and model.shape.kv_values_per_token:
        context = request.context or default_context(model.shape)
        _check_context(model, context)
    common: dict[str, Any] = {
        "request": request, "model": model, "disk_gb": size, "local": local, "notes": notes,
        "context": context or request.context,
    }  # fmt: skip
    candidates = [] if request.cpu_only else _candidates(request, model, context, local)
    found: list[Plan] = []
    for gpus, need, terms in candidates:
        text = add_terms(
            request.search if need is None else raise_gpu_ram(request.search, need.gpu_ram), terms
        )
        matching = await search(text, launch_args=args)
        least = 0.0 if need is None else need.per_gpu / MIB
        if offers := [offer for offer in matching.offers if offer.gpu_ram >= least]:
            found.append(Plan(**common, need=need, search=text, gpus=gpus, offers=offers, on_cpu=False))
    if found:
        return min(found, key=lambda plan: plan.offers[0].hot_dollars_per_hour)
    needs = [need for _, need, _ in candidates if need is not None]
    if request.cpu_only or not request.preset.needs_gpu:
        need = None if model is None else _need(request, model, context, 1)
        terms = {"gpu_ram": "gpu_ram=0"} | _ram_terms(need)
        text = add_terms(request.search, terms)
        matching = await search(text, launch_args=args)
        if matching.offers:
            return Plan(**common, need=need, search=text, gpus=1, offers=matching.offers, on_cpu=True)
    raise Invalid(_refusal(request, needs, every))


def _candidates(
    request: UpRequest, model: Model | None, context: int | None, local: bool
) -> list[tuple[int, MemoryNeed | None, dict[str, str]]]:
    """Numbers of GPUs to try, each with the memory it needs and the terms of its search."""
    wanted = request.gpus_wanted
    remote = (
        {}
        if local
        else {"cuda_max_good": f"cuda_max_good>={CUDA_MIN}", "inet_down": f"inet_down>={INET_DOWN_MIN}"}
    )
    if model is None:
        count = wanted or 1
        least: dict[str, str] = {}
        if request.gpu_ram_gb is not None:
            least = {"gpu_ram": f"gpu_ram>={request.gpu_ram_gb:g}"}
        elif request.preset.needs_gpu:
            least = {"gpu_ram": "gpu_ram>0"}
        return [(count, None, {"num_gpus": f"num_gpus={count}"} | least | remote)]
    counts = (
        (wanted,) if wanted else tuple(n for n in gpu_counts(model.shape) if n in _EVERY_GPU_COUNT) or (1,)
    )
    found: list[tuple[int, MemoryNeed | None, dict[str, str]]] = []
    for count in counts:
        need = _need(request, model, context, count)
        bound = {"gpu_ram": f"gpu_ram>={need.gpu_ram:g}"}
        found.append((count, need, {"num_gpus": f"num_gpus={count}"} | bound | remote))
    return found


def _need(request: UpRequest, model: Model, context: int | None, gpus: int) -> MemoryNeed:
    return memory_need(
        model.shape,
        weights_bytes=model.weights_bytes,
        context=context or 0,
        gpus=gpus,
        server=request.server,
    )


def _ram_terms(need: MemoryNeed | None) -> dict[str, str]:
    if need is None:
        return {}
    gigabytes = math.ceil((need.fixed_per_gpu + need.kv_per_request) / 1e8) / 10
    return {"cpu_ram": f"cpu_ram>={gigabytes:g}"}


def _ram_text(need: MemoryNeed) -> str:
    parts = f"weights {need.weights / GIB:.1f}, KV cache {need.kv_per_request / GIB:.1f} for {need.context} tokens"
    return f"{(need.fixed_per_gpu + need.kv_per_request) / GIB:.1f} GiB of RAM ({parts}), without a GPU"


def _check_context(model: Model, context: int) -> None:
    if model.shape.context_max is not None and context > model.shape.context_max:
        raise Invalid(
            f"--context {context}: {model.name} was made for at most {model.shape.context_max} tokens; give less"
        )


def _check_reachable(request: UpRequest, found: FoundOffers) -> None:
    """Refuse files and addresses that a rented machine cannot reach."""
    if found.market == "host":
        return
    if request.model and local_path(request.model) is not None:
        raise Invalid(
            f"{request.model}: a rented machine cannot read a file of this one; give a Hugging Face repository"
        )
    if not request.image and not request.preset.image:
        raise Invalid(
            f"--image is required on rented machines: there is no common image of {request.preset.title}; name one that "
            "carries it"
        )
    if is_loopback_url(found.engine_url):
        raise Invalid(
            f"rented machines cannot report to {found.engine_url}: set engine.public_url to an address that the internet "
            "reaches, and restart the deployment"
        )


def _refusal(request: UpRequest, needs: list[MemoryNeed], every: FoundOffers) -> str:
    """Why nothing is rented, in one sentence, and what to change."""
    name = request.model or request.preset.name
    if not every.offers:
        return f"nothing was rented: {every.reason or 'no offer matches'}"
    best = max(every.offers, key=lambda offer: offer.gpu_ram * offer.num_gpus)
    what = (
        f"{best.kind} with {best.gpu_ram / 1024:.1f} GiB a GPU"
        if best.gpu_ram
        else f"{best.kind} without a GPU"
    )
    if request.cpu_only:
        return (
            f"nothing was rented: no machine without a GPU is free that has enough memory for {name}; {len(every.offers)} "
            f"others match, such as {what}"
        )
    if not needs:
        return (
            f"nothing was rented: {request.preset.name} needs a GPU, and the largest machine that matches is {what}; "
            "change --search"
        )
    first, last = needs[0], needs[-1]
    other = f", or {last}" if last is not first else ""
    weights_alone = all(
        need.weights / need.gpus > best.gpu_ram * MIB * need.utilization
        for need in needs
        if need.gpus <= best.num_gpus
    )
    remedy = "a quantised model" if weights_alone else "a shorter --context, a quantised model"
    remedy = f"Take {remedy}, or more memory with --search or --gpus"
    if not best.gpu_ram:
        remedy = "Choose others with --search, or give --cpu if this model server computes on CPUs"
    return f"nothing was rented: {name} needs {first}{other}; the largest machine that matches is {what}. {remedy}"
