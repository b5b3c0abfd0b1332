"""The tokens at which an answer ends."""

from collections.abc import Iterable, Mapping

# Ends of a text, a turn or a message, by the names that model families gave them, and what stands between the files of
# a repository. A file often names but one of them, and not always as a control token.
END_NAMES = frozenset(
    (
        "<|eot_id|>",
        "<|im_end|>",
        "<|end|>",
        "<|return|>",
        "<|call|>",
        "<|flush|>",
        "<|calls|>",
        "<end_of_turn>",
        "<|endoftext|>",
        "<|eom_id|>",
        "<EOT>",
        "_<EOT>",
        "[EOT]",
        "[EOS]",
        "<|end_of_text|>",
        "<end_of_utterance>",
        "</s>",
        "<eos>",
        "<｜end▁of▁sentence｜>",
        "<|fim_pad|>",
        "<fim-pad>",
        "<fim_pad>",
        "<PAD>",
        "[PAD]",
        "<|fim_repo|>",
        "<|repo_name|>",
        "<fim-repo>",
        "<REPO>",
        "<reponame>",
        "<|file_sep|>",
    )
)


def end_ids(named: Iterable[int | None], markers: Mapping[str, int]) -> frozenset[int]:
    """Those that the files name, and those among the markers (id by text) that are known to end an answer."""
    known = {markers[text] for text in END_NAMES if text in markers}
    return frozenset(known | {token_id for token_id in named if token_id is not None})
