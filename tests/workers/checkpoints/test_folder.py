"""Folders with safetensors: against the GGUF file they were written from, and against transformers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.counts import full_or
from tests.support.safetensors_folder import (
    default_folder,
    edit_json,
    random_tensors,
    tiny_config,
    tiny_copy,
    tiny_folder,
    tiny_tokenizer,
)
from workers.checkpoints import Checkpoint, open_checkpoint
from workers.checkpoints.bf16 import from_bf16, to_bf16
from workers.checkpoints.model_config import LinearScaling, Llama3Scaling, YarnScaling

ARCHITECTURES = ["llama", "mistral", "qwen2", "qwen3"]
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 256,
}


@pytest.mark.llama
@pytest.mark.parametrize("shards", [1, 3])
def test_the_real_model_is_the_one_in_its_gguf_file(real: Checkpoint, shards: int) -> None:
    folder = open_checkpoint(default_folder("BF16", shards))
    assert folder.config == real.config
    assert folder.names() == real.names()
    for name in full_or(real.names(), reduced=real.names()[:10]):  # type: ignore[call-overload]
        np.testing.assert_array_equal(folder.read_bf16(name), real.read_bf16(name))
    ours, theirs = folder.tokenizer, real.tokenizer
    assert [ours.token_bytes(each) for each in range(ours.vocab_size)] == [
        theirs.token_bytes(each) for each in range(theirs.vocab_size)
    ]
    assert (ours.bos_id, ours.end_ids) == (theirs.bos_id, theirs.end_ids)
    assert (folder.chat_template, folder.bos_token, folder.eos_token) == (
        real.chat_template,
        real.bos_token,
        real.eos_token,
    )
    for parse_special in (True, False):
        text = "Say  <|im_end|> 1234 times: ☃"
        expected = theirs.encode(text, add_bos=True, parse_special=parse_special)
        assert ours.encode(text, add_bos=True, parse_special=parse_special) == expected


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("shards", [1, 4])
def test_tensors_are_what_was_written(architecture: str, dtype: Any, shards: int) -> None:
    checkpoint = open_checkpoint(tiny_folder(architecture, dtype, shards))
    config = tiny_config(architecture, tiny_tokenizer().get_vocab_size())
    assert checkpoint.config == config
    tensors = dict(random_tensors(config))
    assert checkpoint.names() == list(tensors)
    for name, values in tensors.items():
        stored = values
        if dtype == "F16":
            stored = values.astype(np.float16).astype(np.float32)
        elif dtype == "BF16":
            stored = from_bf16(to_bf16(values))
        np.testing.assert_array_equal(checkpoint.read(name), stored)
        assert checkpoint.read(name).dtype == np.float32
        np.testing.assert_array_equal(checkpoint.read_bf16(name), to_bf16(stored))


def test_tensors_outlive_the_checkpoint() -> None:
    checkpoint = open_checkpoint(tiny_folder("llama", "BF16"))
    values = checkpoint.read_bf16("model.norm.weight")
    kept = values.copy()
    checkpoint.close()
    np.testing.assert_array_equal(values, kept)
    with pytest.raises(KeyError):
        checkpoint.read("model.norm.weight")
    assert checkpoint.tokenizer.token_bytes(5)


def test_a_file_of_the_safetensors_package_is_read(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy", reason="torch's extra: safetensors is not installed")
    folder = tiny_copy(tmp_path)
    config = tiny_config("llama", tiny_tokenizer().get_vocab_size())
    tensors = dict(random_tensors(config, seed=2))
    safetensors.save_file(tensors, folder / "model.safetensors")
    checkpoint = open_checkpoint(folder)
    for name, values in tensors.items():
        np.testing.assert_array_equal(checkpoint.read(name), values)


@settings(max_examples=full_or(5000, reduced=200), deadline=None)
@example([3.3895313892515355e38, -3.4028234663852886e38, 3.3961775292304957e38, 0.0, -0.0, 1e-45])
@given(st.lists(st.floats(width=32), min_size=1))
def test_bfloat16_is_rounded_to_nearest_even(numbers: list[float]) -> None:
    values = np.array(numbers, np.float32)
    bits = to_bf16(values)
    for value, rounded in zip(values, from_bf16(bits), strict=True):
        if np.isnan(value):
            assert np.isnan(rounded)
            continue
        if np.isinf(value):
            assert rounded == value
            continue
        low = np.array([value]).view(np.uint32) & np.uint32(0xFFFF0000)
        below, above = (low + np.array([0, 0x10000], np.uint32)).view(np.float32).astype(np.float64)
        if not np.isfinite(above):
            # The largest numbers round to infinity as if the next one were there.
            above = np.copysign(2.0**128, float(value))
        distances = abs(np.float64(value) - below), abs(above - np.float64(value))
        if distances[0] == distances[1]:
            nearest = below if not (low[0] >> 16) & 1 else above
        else:
            nearest = below if distances[0] < distances[1] else above
        expected = nearest if abs(nearest) < 2.0**128 else np.copysign(np.inf, float(value))
        assert np.float64(rounded) == expected


def test_rope_in_older_and_newer_files(tmp_path: Path) -> None:
    config = tiny_copy(tmp_path) / "config.json"
    expected = open_checkpoint(tmp_path).config
    assert expected.rope_theta == 50_000
    edit_json(config, rope_parameters=None, rope_theta=50_000)
    assert open_checkpoint(tmp_path).config == expected
    edit_json(config, rope_theta=None)
    assert open_checkpoint(tmp_path).config.rope_theta == 10_000
    edit_json(config, rope_theta=9_000, rope_scaling={"type": "linear", "factor": 2})
    assert open_checkpoint(tmp_path).config.rope_scaling == LinearScaling(2)
    edit_json(config, rope_scaling=None, rope_theta=None, rope_parameters={"rope_theta": 7.0, **LLAMA3})
    found = open_checkpoint(tmp_path).config
    assert (found.rope_theta, found.rope_scaling) == (7, Llama3Scaling(8, 1, 4, 256))
    edit_json(config, rope_parameters={"rope_theta": 7.0, "rope_type": "yarn", "factor": 4, "attention_factor": 0.5})
    assert open_checkpoint(tmp_path).config.rope_scaling == YarnScaling(4, 512, 32, 1, 0.5)


@pytest.mark.parametrize(
    ("architecture", "changes", "window"),
    [
        ("mistral", {"sliding_window": 100}, 100),
        ("mistral", {"sliding_window": 512}, None),
        ("mistral", {"sliding_window": None}, None),
        ("qwen2", {"sliding_window": 100}, None),
        ("qwen2", {"sliding_window": 100, "use_sliding_window": True}, 100),
        ("qwen3", {"sliding_window": 100, "use_sliding_window": True, "layer_types": ["full_attention"] * 2}, None),
    ],
)
def test_a_sliding_window_limits_the_context(
    tmp_path: Path, architecture: str, changes: dict[str, Any], window: int | None
) -> None:
    edit_json(tiny_copy(tmp_path, architecture) / "config.json", **changes)
    config = open_checkpoint(tmp_path).config
    assert config.sliding_window == window
    assert config.max_context == (window or 512)


def test_end_tokens_are_those_of_all_files(tmp_path: Path) -> None:
    folder = tiny_copy(tmp_path)
    edit_json(folder / "config.json", eos_token_id=[7, 2])
    (folder / "generation_config.json").write_text('{"eos_token_id": 9}')
    assert open_checkpoint(folder).tokenizer.end_ids == {0, 2, 7, 9}


def test_a_prompt_begins_as_the_tokenizer_says(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, processors

    folder = tiny_copy(tmp_path)
    assert open_checkpoint(folder).tokenizer.bos_id is None
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing(
        "<|im_start|> $A <|im_end|>", None, [("<|im_start|>", 1), ("<|im_end|>", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    found = open_checkpoint(folder).tokenizer
    assert found.bos_id == 1
    assert found.encode("a", add_bos=True, parse_special=True) == [
        1,
        *found.encode("a", add_bos=False, parse_special=True),
    ]
    edit_json(folder / "tokenizer_config.json", add_bos_token=False)
    assert open_checkpoint(folder).tokenizer.bos_id is None


def test_the_chat_template_is_a_file_or_in_the_configuration(tmp_path: Path) -> None:
    folder = tiny_copy(tmp_path)
    configured = open_checkpoint(folder).chat_template
    assert configured and "im_start" in configured
    several = [{"name": "tools", "template": "{{ 1 }}"}, {"name": "default", "template": "{{ 2 }}"}]
    edit_json(folder / "tokenizer_config.json", chat_template=several)
    assert open_checkpoint(folder).chat_template == "{{ 2 }}"
    (folder / "chat_template.jinja").write_text("{{ 3 }}")
    assert open_checkpoint(folder).chat_template == "{{ 3 }}"
    (folder / "chat_template.jinja").unlink()
    edit_json(folder / "tokenizer_config.json", chat_template=None)
    assert open_checkpoint(folder).chat_template is None


def test_a_sentencepiece_tokenizer_in_a_folder(tmp_path: Path) -> None:
    from tests.workers.runners.llama_cpp.gguf_file import write_tiny_model

    file = open_checkpoint(write_tiny_model(tmp_path / "tiny.gguf"))
    folder = tiny_copy(tmp_path / "folder")
    (folder / "tokenizer.json").write_text(file.tokenizer.to_json(), encoding="utf-8")
    edit_json(folder / "tokenizer_config.json", bos_token="<s>", eos_token="</s>", add_bos_token=True)
    found = open_checkpoint(folder).tokenizer
    assert (found.bos_id, found.bos_token, found.eos_token) == (1, "<s>", "</s>")
    for token_id in range(file.tokenizer.vocab_size):
        assert found.token_bytes(token_id) == file.tokenizer.token_bytes(token_id)
    text = "the Paris is ☃<s>"
    token_ids = found.encode(text, add_bos=True, parse_special=True)
    assert token_ids == file.tokenizer.encode(text, add_bos=True, parse_special=True)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_transformers_reads_the_same_configuration(architecture: str) -> None:
    transformers = pytest.importorskip("transformers")
    folder = tiny_folder(architecture)
    theirs, ours = transformers.AutoConfig.from_pretrained(folder), open_checkpoint(folder).config
    assert theirs.model_type == ours.architecture
    assert theirs.rope_parameters["rope_theta"] == ours.rope_theta
    assert theirs.head_dim == ours.head_dim if hasattr(theirs, "head_dim") and theirs.head_dim else True
    assert (theirs.hidden_size, theirs.num_hidden_layers, theirs.num_attention_heads, theirs.num_key_value_heads) == (
        ours.hidden_size,
        ours.num_layers,
        ours.num_heads,
        ours.num_kv_heads,
    )
    assert theirs.tie_word_embeddings == ours.tie_word_embeddings


@pytest.mark.llama
def test_transformers_has_the_same_tokens(real: Checkpoint) -> None:
    transformers = pytest.importorskip("transformers")
    folder = default_folder()
    theirs, ours = transformers.AutoTokenizer.from_pretrained(folder), open_checkpoint(folder).tokenizer

    @settings(max_examples=full_or(1000, reduced=100), deadline=None)
    @given(st.text(max_size=100) | st.lists(st.sampled_from(["<|im_end|>", "the ", "\n", " 12", "☃"])).map("".join))
    def check(text: str) -> None:
        assert ours.encode(text, add_bos=True, parse_special=True) == theirs.encode(text)

    check()
