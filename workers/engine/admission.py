"""From a request to a sequence that can run: prompt tokens, limits, and the replay of what is known already."""

import logging

import jinja2

from schemas.errors import ErrorCode, ServingError
from schemas.events import FinishReason
from schemas.requests import ChatPrompt, Prompt, SamplingParams, TextPrompt, TokenPrompt
from workers.engine.chat import ChatTemplate
from workers.engine.config import EngineConfig
from workers.engine.messages import EngineRequest, Resume
from workers.engine.sampler import Sampler, SamplerScratch
from workers.engine.sequence import Sequence
from workers.engine.stopping import Stopping
from workers.engine.templates import RenderLimits
from workers.runners.base import Opened

# The text of a control token is longer than its bytes in output, which are none.
_LONGEST_MARKER = 64

logger = logging.getLogger(__name__)


class Admission:
    """Makes sequences, on the engine thread, which alone may touch the tokenizer."""

    def __init__(self, opened: Opened, config: EngineConfig, scratch: SamplerScratch) -> None:
        facts, capabilities = opened
        self._tokenizer = facts.tokenizer
        self._bos_token = facts.bos_token
        self._max_output_tokens = config.max_output_tokens
        page_size = capabilities.page_size or 1
        whole_pages = capabilities.kv_token_budget // page_size * page_size
        self._context = min(capabilities.max_tokens_per_handle, whole_pages)
        self._max_chars = self._context * max(facts.max_token_bytes, _LONGEST_MARKER)
        self._scratch = scratch
        self._template: ChatTemplate | None = None
        self._no_template = "the model has no chat template; use /v1/completions"
        if facts.chat_template is not None:
            limits = RenderLimits(self._max_chars, config.template_timeout_s)
            try:
                self._template = ChatTemplate(facts.chat_template, facts.bos_token, facts.eos_token, limits)
            except jinja2.TemplateSyntaxError as error:
                self._no_template = f"the model's chat template does not compile: {error}"
                logger.warning("%s", self._no_template)

    def prepare(self, request: EngineRequest, arrival: int) -> Sequence:
        """The sequence of a request, with what an earlier run generated replayed: it may have ended already (`reason`).

        Raises ServingError when the request cannot be served.
        """
        params = request.sampling
        prompt_ids = self._prompt_ids(request)
        self._check_bias(params)
        param = "messages" if isinstance(request.prompt, ChatPrompt) else "prompt"
        if not prompt_ids:
            raise ServingError(ErrorCode.INVALID_PARAMETER, "the prompt has no tokens", param=param)
        room = self._context - len(prompt_ids)
        if room < 1:
            raise self._too_long(f"{len(prompt_ids)} tokens", param)
        wanted = self._max_output_tokens if params.max_tokens is None else params.max_tokens
        max_tokens = min(wanted, room)
        sequence = Sequence(
            request_id=request.request_id,
            priority=request.priority,
            arrival=arrival,
            token_ids=prompt_ids,
            num_prompt=len(prompt_ids),
            max_tokens=max_tokens,
            sampler=Sampler(params, prompt_ids, self._scratch),
            stopping=Stopping(self._tokenizer, params, max_tokens),
            tenant=request.tenant,
            is_prefill_only=request.is_prefill_only,
        )
        if request.resume is not None:
            self._replay(sequence, request.resume)
        if sequence.reason is None and sequence.num_output >= max_tokens:
            sequence.reason = FinishReason.LENGTH
        return sequence

    def _replay(self, sequence: Sequence, resume: Resume) -> None:
        pieces = []
        for token_id in resume.token_ids:
            pieces.append(sequence.append(token_id).text)
            if sequence.reason is not None:
                sequence.token_ids += resume.token_ids[len(pieces) :]
                return
        if pieces != resume.pieces:
            # The pieces in the journal were shown already and stand; with one fingerprint this does not happen.
            logger.warning("request %s: its journal's text does not follow from its tokens here", sequence.request_id)

    def _prompt_ids(self, request: EngineRequest) -> list[int]:
        prompt: Prompt = request.prompt
        match prompt:
            case TokenPrompt():
                if any(not 0 <= token_id < self._tokenizer.vocab_size for token_id in prompt.token_ids):
                    message = f"token ids must be from 0 to {self._tokenizer.vocab_size - 1}"
                    raise ServingError(ErrorCode.INVALID_PARAMETER, message, param="prompt")
                return list(prompt.token_ids)
            case TextPrompt():
                return self._encode(prompt.text, "prompt")
            case ChatPrompt():
                if self._template is None:
                    raise ServingError(ErrorCode.NO_CHAT_TEMPLATE, self._no_template, param="messages")
                return self._encode(self._template.render(prompt, request.created), "messages")

    def _encode(self, text: str, param: str) -> list[int]:
        """Token ids with BOS exactly once, whether the text brings it or the tokenizer adds it."""
        if len(text) > self._max_chars:
            raise self._too_long(f"{len(text)} characters", param)
        bos_id = self._tokenizer.bos_id
        has_bos = bool(self._bos_token) and text.startswith(self._bos_token)
        token_ids = self._tokenizer.encode(text, add_bos=bos_id is not None and not has_bos, parse_special=True)
        while bos_id is not None and token_ids[:2] == [bos_id, bos_id]:
            del token_ids[0]
        return token_ids

    def _check_bias(self, params: SamplingParams) -> None:
        for token_id, _ in params.logit_bias:
            if not 0 <= token_id < self._tokenizer.vocab_size:
                message = f"logit_bias names token {token_id}; ids are from 0 to {self._tokenizer.vocab_size - 1}"
                raise ServingError(ErrorCode.INVALID_PARAMETER, message, param="logit_bias")

    def _too_long(self, size: str, param: str) -> ServingError:
        message = f"This model's maximum context length is {self._context} tokens, but the {param} came to {size}."
        return ServingError(ErrorCode.CONTEXT_LENGTH_EXCEEDED, message, param=param)
