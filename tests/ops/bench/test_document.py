"""The JSON record."""

import json
from pathlib import Path

import orjson

from ops.bench.document import describe_model, document
from ops.bench.turns import Results
from tests.ops.bench.figures import report, summary


def test_record_has_every_round_the_medians_and_the_ratios() -> None:
    results = Results()
    for tokens_per_s in (100.0, 120.0, 110.0):
        results.add("ours", summary(tokens_per_s))
        results.add("llama-server", summary(100.0))
    results.facts["ours"] = {"backend": "llama_cpp"}
    found = json.loads(orjson.dumps(document(report(results))))
    assert [one["output_tokens_per_s"] for one in found["rounds"]["ours"]["c=1"]] == [100, 120, 110]
    assert found["medians"]["ours"]["c=1"]["output_tokens_per_s"] == {"median": 110, "low": 100, "high": 120}
    assert found["ratios"]["ours / llama-server"]["c=1"]["output_tokens_per_s"]["median"] == 1.1
    assert found["arms"]["ours"]["facts"] == {"backend": "llama_cpp"}
    assert found["settings"]["order"] == ["ours", "llama-server"]
    assert found["host"]["features"]["avx512_bf16"] is False
    assert found["model"]["weights"] == "Q4_1"
    assert found["quality"]["arms"] == {}
    assert found["best_peer"]["ours"]["num_cells"] == 2


def test_model_is_described_by_its_file(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF")
    model = describe_model(path)
    assert model is not None
    assert (model.file, model.size_bytes, model.weights) == ("m.gguf", 4, "unknown")
    assert describe_model(None) is None
