"""The promises that every domain makes, checked: run this on your own in its tests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from multidiff import domain as domains
from multidiff import load
from multidiff.domain import Domain
from multidiff.errors import InputError
from multidiff.state import tensors

TOLERANCE = 1e-4
"""Relative difference, fp32, between a sample alone and in a batch."""


def check_domain(
    domain: Domain, checkpoints: Iterable[str | Path] = (), call: Mapping[str, Any] | None = None
) -> list[str]:
    """Hold a domain to what `multidiff.domain.Domain` and `multidiff.pipeline.Pipeline` ask of it.

    Args:
        domain: any, installed or not.
        checkpoints: folders, beside those that the domain ships; small ones make it quick.
        call: arguments of the pipeline's call, such as a prompt; they must give samples of one shape.

    Returns:
        What was checked, a line each.

    Raises:
        AssertionError: a promise is broken; says which.
    """
    told = [_check_entry(domain), _check_references(domain), _check_arguments(domain), *_check_recipes(domain)]
    for folder in [*domain.checkpoints().values(), *map(Path, checkpoints)]:
        pipe = load(folder)
        assert pipe.config["domain"] == domain.name, f"{folder} is of the domain {pipe.config['domain']}"
        told.append(f"{folder.name}: loads")
        told += [f"{folder.name}: {line}" for line in check_pipeline(pipe, **(call or {}))]
    return told


def check_pipeline(pipe: Any, **call: Any) -> list[str]:
    """The part of `check_domain` about one pipeline."""
    call = {"seed": 1, "num_inference_steps": 4, **call}
    together = final_states(pipe, [0, 1, 2], **call)
    again = final_states(pipe, [0, 1, 2], **call)
    assert all(torch.equal(together[i], again[i]) for i in together), "the same seed gives other samples"
    for i in (0, 2):
        error = _difference(final_states(pipe, [i], **call)[i], together[i])
        assert error <= TOLERANCE, f"sample {i} alone differs by {error:.1e} from the same one in a batch"
    assert _difference(together[0], together[1]) > TOLERANCE, "two samples of a seed are the same"
    other = final_states(pipe, [0], **{**call, "seed": 2})
    assert _difference(together[0], other[0]) > TOLERANCE, "the seed changes nothing"
    _check_refusals(pipe, call)
    _check_files(pipe, call, together)
    return ["seeds and batches", "bad arguments are refused", "saves, stores and loads what it made"]


def final_states(pipe: Any, indices: list[int], **call: Any) -> dict[int, Tensor]:
    """The last state of each sample, flat, float64; batch rows must come in the order of `indices`."""
    seen: dict[str, Any] = {}
    pipe(
        num_samples=len(indices),
        indices=indices,
        callback_on_step_end=lambda pipe, step, t, kwargs: seen.update(kwargs),
        **call,
    )
    rows = torch.cat([part.flatten(1).double() for part in tensors(seen["latents"])], dim=1)
    assert len(rows) == len(indices), "a call for few samples should be one batch"
    return dict(zip(indices, rows, strict=True))


def _difference(a: Tensor, b: Tensor) -> float:
    if a.shape != b.shape:
        return float("inf")
    return float((a - b).abs().max() / b.square().mean().sqrt().clamp(min=1e-12))


def _check_entry(domain: Domain) -> str:
    if domain.name not in domains.names():
        return "not installed: no entry point"
    assert domains.find(domain.name) == domain, f"the entry point {domain.name} names another domain"
    return "entry point"


def _check_references(domain: Domain) -> str:
    named = (domain.pipeline, domain.prepare, domain.evaluate, domain.table)
    hooks = (domain.generate_arguments, domain.prepare_arguments, domain.evaluate_arguments)
    references = [name for name in (*named, *hooks, *domain.components.values()) if name]
    for reference in references:
        assert callable(domains.load(reference)), f"{reference} cannot be called"
    return f"{len(references)} references"


def _check_arguments(domain: Domain) -> str:
    from multidiff.cli import evaluate, generate, prepare

    for command in (generate, prepare, evaluate):
        command._parser(domain)  # raises where an option of the domain's is one of ours
    return "options of the command line"


def _check_recipes(domain: Domain) -> list[str]:
    import yaml

    for path in domain.recipes().values():
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
        for key in ("model", "data"):
            name = recipe[key]["class_path"]
            module, _, attribute = name.rpartition(".")
            assert callable(domains.load(f"{module}:{attribute}")), f"{path}: {name} is no class"
    return [f"recipe {name}" for name in domain.recipes()]


def _check_refusals(pipe: Any, call: Mapping[str, Any]) -> None:
    wrong: list[dict[str, Any]] = [{"num_samples": 0}, {"seed": -1}, {"seed": 2**63}, {"seed": 0.5}]
    wrong += [{"solver": "no such"}, *({"num_inference_steps": steps} for steps in (0, -1, 10**6))]
    for argument in wrong:
        assert _refusal(pipe, {"num_samples": 1, **call, **argument}).count("\n") == 0, (
            f"{argument} is not refused well"
        )


def _refusal(pipe: Any, call: Mapping[str, Any]) -> str:
    try:
        pipe(**call)
    except InputError as error:
        return str(error)
    return "\n"


def _check_files(pipe: Any, call: Mapping[str, Any], states: Mapping[int, Tensor]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        output = pipe(num_samples=3, **call)
        pipe.store([output], Path(folder) / "chunk")
        restored = pipe.restore([Path(folder) / "chunk"], output.recipe, output.network_calls)
        written = {}
        for name, made in (("made", output), ("restored", restored)):
            records: list[dict[str, Any]] = []
            made.save(Path(folder) / name, records)
            assert [record["sample"] for record in records] == [0, 1, 2], "not one record a sample"
            written[name] = [(Path(folder) / name / file).read_bytes() for file in pipe.files]
        assert written["made"] == written["restored"], "what was stored is not what comes back"
        saved = load(pipe.save_pretrained(Path(folder) / "again"))
        again = final_states(saved, [0, 1, 2], **call)
        assert all(torch.equal(states[i], again[i]) for i in again), "save_pretrained and load change the samples"
