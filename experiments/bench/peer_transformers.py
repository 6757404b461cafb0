"""The peer: `transformers` Inkling in torch, serving timed micro-turns or training over a pipe.

In: lines of JSON on standard input: first the sizes (`InklingTextConfig` fields) and the number of
threads, then one request a line, the tokens of a micro-turn or a batch to train on. Out: one line
of JSON each, first versions and parameter count, then the seconds that it took and the tokens put
out or the loss. Runs in the reference environment (`experiments/parity/requirements.txt`), imports
nothing of this project, and is started by `against_transformers.py` and `training.py`.
"""

import json
import os
import sys
import time

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache


def build(fields: dict):
    """A random model, float32, with what its users get: eager python, its own cache."""
    fields = dict(fields)
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for weight in model.parameters():  # some are left unset by from_config
            if weight.dim() > 1:
                weight.normal_(0.0, weight.shape[-1] ** -0.5)
    return model.eval()


@torch.inference_mode()
def micro_turn(model, cache, tokens: list[int], put_out: int) -> list[int]:
    """Append the tokens that came in, then `put_out` of its own, each the likeliest."""
    fed, out = torch.tensor([tokens]), []
    for _ in range(put_out):
        logits = model(fed, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
        fed = logits[:, -1].argmax(-1, keepdim=True)
        out.append(int(fed))
    model(fed, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return out


def train_step(model, rule, batch: list[list[int]]) -> float:
    """Forward, backward and the update on every next token of a batch; the loss."""
    tokens = torch.tensor(batch)
    rule.zero_grad(set_to_none=True)
    loss = model(tokens, labels=tokens, use_cache=False).loss
    loss.backward()
    rule.step()
    return loss.item()


def main() -> None:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not reach the pipe

    def reply(**content) -> None:
        replies.write(json.dumps(content) + "\n")
        replies.flush()

    request = json.loads(sys.stdin.readline())
    torch.manual_seed(0)
    torch.set_num_threads(request["threads"])
    model = build(request["config"])
    cache = DynamicCache(config=model.config)
    rule = torch.optim.AdamW(model.parameters(), lr=request.get("learning_rate", 1e-3))
    reply(
        torch=torch.__version__,
        transformers=transformers.__version__,
        attention=model.config._attn_implementation,
        experts=getattr(model.config, "_experts_implementation", None),
        parameters=sum(p.numel() for p in model.parameters()),
    )
    for line in sys.stdin:
        request = json.loads(line)
        started, used = time.perf_counter(), time.process_time()
        if "batch" in request:
            out = {"loss": train_step(model.train(), rule, request["batch"])}
        else:
            out = {"tokens": micro_turn(model, cache, request["tokens"], request["put_out"])}
        reply(
            seconds=time.perf_counter() - started,
            cpu_seconds=time.process_time() - used,
            **out,
        )


if __name__ == "__main__":
    main()
