"""The gate in its real processes, on a tiny model."""

import json
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from ops.bench.document import document
from ops.bench.plan import BenchPlan
from ops.bench.quality import gate
from ops.bench.quality.gate import Effort, run_gate
from ops.bench.quality.results import QualityResults
from ops.bench.quality.tables import quality_summary
from ops.bench.turns import Results
from tests.ops.bench.figures import plan, report
from tests.support.models import why_no_torch
from tests.support.safetensors_folder import tiny_folder

needs_torch = pytest.mark.skipif(bool(why_no_torch()), reason=why_no_torch() or "")


@pytest.fixture
def tiny() -> BenchPlan:
    return replace(plan(model=tiny_folder("llama")), context=64)


@needs_torch
@pytest.mark.torch
async def test_a_backend_is_compared_with_fp32_in_every_shape(tiny: BenchPlan, tmp_path: Path) -> None:
    results, said = QualityResults(), list[str]()
    # llama.cpp reads no folders: it fails, and the others go on.
    backends = {"ours-llama": "llama_cpp", "ours": "torch", "ours-torch": "torch"}
    reference = await run_gate(backends, tiny, Effort(6), tmp_path, results, said.append)
    assert reference is not None
    assert reference.open().shape[0] == sum(map(len, reference.windows)) == results.tokens == 48
    # Both names stand for one backend, which is computed once.
    asked = ["quality: the reference", "quality: ours-llama", "quality: ours"]
    assert [line for line in said if line.startswith("quality")] == asked
    assert list(results.failures) == ["ours-llama"]
    assert list(results.arms) == ["ours", "ours-torch"]
    assert "f32 (eager)" in results.reference
    found = results.arms["ours-torch"]
    assert list(found.shapes) == ["prompt", "1 row", "8 rows"]
    assert all(one.tokens == 48 and 0 <= one.mean_kl < 0.1 for one in found.shapes.values())
    assert "mean KL to FP32 over 48 tokens" in quality_summary(results)
    measured = report(Results())
    measured.quality = results
    told = json.loads(orjson.dumps(document(measured)))["quality"]
    assert told["arms"]["ours"]["shapes"]["8 rows"]["tokens"] == 48
    assert told["limit"] == 0.008


@needs_torch
@pytest.mark.torch
async def test_a_process_that_crashes_is_a_failure(
    tiny: BenchPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "COMMAND", ("/bin/sh", "-c", "cat > /dev/null; echo broken >&2; exit 7"))
    results = QualityResults()
    assert await run_gate({"ours": "torch"}, tiny, Effort(2), tmp_path, results, lambda _: None) is None
    assert results.failures == {"reference": "its process ended with 7: broken"}
