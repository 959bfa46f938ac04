"""From a valid task to its response: tokenise, queue, wait, build. Calls and the chunks of streams go the same way."""

from functools import partial

from gateway.calls import Call, Work
from gateway.observing.spans import Passage, passage, step
from gateway.parts import Parts
from gateway.prompts import Prompt, embed_prompt, rerank_prompt
from gateway.registry import ServedModel
from gateway.responses import embed_response, rerank_response
from gateway.tokenization import TokenizedPrompt
from gateway.validation import EmbedTask, RerankTask
from jobqueue.lanes import Lane
from jobqueue.messages import Job, Operation, Result
from jobqueue.pending import Submission
from qwen3.inference.v1 import embedding_pb2, rerank_pb2


async def embed(task: EmbedTask, call: Call, parts: Parts) -> embedding_pb2.EmbedResponse:
    """Raises CallError, and what Producer.submit raises."""
    parts.quotas.check(call)
    prompt = await _tokenize(task, embed_prompt(task.texts, instruction=task.instruction), call, parts)
    result = await _compute(task, _embed_job(task, prompt), call, parts)
    return embed_response(task, prompt, result, call)


async def rerank(task: RerankTask, call: Call, parts: Parts) -> rerank_pb2.RerankResponse:
    """Raises CallError, and what Producer.submit raises."""
    parts.quotas.check(call)
    prompt = rerank_prompt(task.query, task.documents, instruction=task.instruction, field="documents")
    tokenized = await _tokenize(task, prompt, call, parts)
    result = await _compute(task, _rerank_job(tokenized), call, parts)
    return rerank_response(task, tokenized, result, call)


async def _tokenize(task: EmbedTask | RerankTask, prompt: Prompt, call: Call, parts: Parts) -> TokenizedPrompt:
    with step(call.trace, "tokenize"):
        tokenized = await parts.tokenization.tokenize(
            task.model.tokenizer,
            prompt,
            policy=task.truncation,
            max_tokens=task.model.announcement.max_input_tokens,
            max_total_tokens=parts.limits.max_request_tokens,
        )
    call.work = Work(
        model=task.model.id,
        lane=task.lane,
        num_inputs=len(tokenized.tails),
        input_tokens=sum(tokenized.lengths),
        tokenize_us=tokenized.elapsed_us,
        dimensions=task.dimensions if isinstance(task, EmbedTask) else 0,
    )
    return tokenized


async def _compute(task: EmbedTask | RerankTask, job: Job, call: Call, parts: Parts) -> Result:
    async with parts.quotas.held(call):
        answered = await parts.answers.answer(
            job,
            task.model.announcement,
            lane=task.lane,
            tenant=call.caller.tenant,
            compute=partial(_submit, task, call, parts),
        )
    call.result, call.sources = answered.result, answered.sources
    return answered.result


async def _submit(task: EmbedTask | RerankTask, call: Call, parts: Parts, job: Job) -> Result:
    with passage(call.trace, task.model.announcement.queue) as through:
        return await parts.producer.submit(_submission(task.model, job, task.lane, call, through))


def _embed_job(task: EmbedTask, prompt: TokenizedPrompt) -> Job:
    return Job(
        operation=Operation.EMBED,
        prefix=prompt.prefix,
        tails=prompt.tails,
        dimensions=task.dimensions,
        normalize=task.normalize,
        encoding=task.encoding,
    )


def _rerank_job(prompt: TokenizedPrompt) -> Job:
    return Job(operation=Operation.RERANK, prefix=prompt.prefix, tails=prompt.tails)


def _submission(model: ServedModel, job: Job, lane: Lane, call: Call, through: Passage) -> Submission:
    return Submission(
        queue=model.announcement.queue,
        call=job,
        lane=lane,
        deadline=call.deadline,
        request_id=call.request_id,
        tenant=call.caller.tenant,
        attention_cost=model.announcement.attention_cost,
        wakeable=model.announcement.wakeable,
        is_retry=call.is_retry,
        trace=through.trace,
        on_admitted=through.on_admitted,
    )
