"""lm-evaluation-harness's side of a comparison; runs inside the environment that `lm_eval_env.py` makes.

Takes a request (JSON file): model folder, dtype, threads, batch size, shots, seed and tasks, each with a file of
items and one of shots. Gives a JSON file: per task and item the prompt, the log-likelihoods, acc and acc_norm as
lm-eval's own task and metric code has them, and the processor seconds its
model spent on all requests of a task.
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import torch
from lm_eval import simple_evaluate
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM


class TimedHFLM(HFLM):
    """lm-eval's HF model with a clock around its log-likelihoods (tokenising included, as in ours)."""

    seconds = 0.0

    def loglikelihood(self, requests, disable_tqdm=False):
        start = time.process_time()
        found = super().loglikelihood(requests, disable_tqdm=True)
        self.seconds += time.process_time() - start
        return found


def make_task(given, shots):
    """A task as lm-eval's YAML files have them: test split and, for shots, a split of its own."""
    continuation = given["style"] == "continuation"
    files = {"test": given["items"], **({"pool": given["pool"]} if given["pool"] else {})}
    return ConfigurableTask(
        config={
            "task": given["name"],
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": files},
            "output_type": "multiple_choice",
            "test_split": "test",
            "fewshot_split": "pool" if given["pool"] else "test",
            "doc_to_text": lambda doc: doc["question"] if continuation else f"Question: {doc['question']}\nAnswer:",
            "doc_to_choice": lambda doc: doc["choices"],
            "doc_to_target": lambda doc: doc["answer"],
            "target_delimiter": " ",
            **({"fewshot_config": {"sampler": "first_n"}} if given["same"] else {}),
            "num_fewshot": shots,
            "metric_list": [{"metric": name, "aggregation": "mean"} for name in ("acc", "acc_norm")],
        }
    )


def main():
    request = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(request["threads"])
    model = TimedHFLM(
        pretrained=request["model"], dtype=request["dtype"], device="cpu", batch_size=request["batch_size"]
    )
    answer = {}
    for given in request["tasks"]:
        model.seconds = 0.0
        found = simple_evaluate(
            model=model,
            tasks=[make_task(given, request["shots"])],
            num_fewshot=request["shots"],
            log_samples=True,
            bootstrap_iters=0,
            fewshot_random_seed=request["seed"],
        )
        samples = found["samples"][given["name"]]
        answer[given["name"]] = {
            "seconds": model.seconds,
            "acc": found["results"][given["name"]]["acc,none"],
            "acc_norm": found["results"][given["name"]]["acc_norm,none"],
            "items": {
                sample["doc"]["id"]: {
                    "prompt": sample["arguments"][0][0],
                    "loglik": [float(pair[0]) for pair in sample["filtered_resps"]],
                    "acc": sample["acc"],
                    "acc_norm": sample["acc_norm"],
                }
                for sample in samples
            },
        }
    Path(sys.argv[2]).write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
