"""The tests of `make test-gpu`: these files, but for the tests named, which are about a CPU, about files, or long.

They run on the device of `--device`, as tests/helpers/devices.py says. Of tests for every variant, every mixing and
every pool a choice is enough there: what differs between devices are the kernels, and these variants run all of them.
"""

from pathlib import Path

import pytest

from config import ARCHITECTURES
from settings.paths import ROOT
from tests.helpers.variants import VARIANTS

FILES = {
    "modules/test_laws.py": ("test_axes_have_distinct_sizes",),
    "modules/test_parity.py": (),
    "modules/test_kernels.py": (
        "test_bf16_attention_is_as_exact_as_bf16_allows", "test_written_out_attention_serves_only_where_it_is_faster",
        "test_the_logits_never_exist_all_at_once",
    ),
    "modules/test_flex.py": (),
    "modules/test_positions.py": (),
    "modules/test_modules.py": ("test_blocks_name_their_attentions_and_their_streams",),
    "modules/test_factored.py": (),
    "modules/test_future.py": (
        "test_greedy_generation_follows_the_forward_pass_with_and_without_the_cache",
        "test_the_logits_of_a_level_never_exist_all_at_once", "test_one_batch_can_be_memorised",
    ),
    "modules/test_multi_token.py": (
        "test_heads_go_one_after_the_other", "test_the_logits_of_the_heads_never_exist_all_at_once",
    ),
    "modules/test_lora.py": (),
    "modules/test_heads.py": (),
    "tracing/test_tracing.py": ("test_attention_weights_are_logged_during_generation",),
    "lab/training/test_running_ahead.py": (),
    "lab/training/test_training.py": ("test_a_killed_training_resumes_from_its_last_checkpoint",),
    "lab/test_devices.py": (),
}
CHOSEN = {  # of these parameters of a test these values; of all others every one
    "config": [VARIANTS[name] for name in (
        *ARCHITECTURES, "alibi-grouped-six-heads", "cosine-bias", "parallel-post-norm", "factored-dense",
        "factored-head-norm-frozen", "shaped-learned", "future-self-attention", "llama-lora", "gpt2-int4-grouped",
        "llama-int8-lora", "llama-windowed", "alibi-windowed", "future-windowed", "multi-token-windowed",
    )],
    "output_mixing": ("dense", "identity", "kronecker"),
    "predicts": ("bag", "vector_cosine"),
}


def has_tests_for_gpu(path: Path) -> bool:
    """Whether this file is in the list, or is a folder."""
    return path.is_dir() or path.relative_to(ROOT / "tests").as_posix() in FILES


def is_for_gpu(item: pytest.Item) -> bool:
    file = item.path.relative_to(ROOT / "tests").as_posix()
    given = item.callspec.params if hasattr(item, "callspec") else {}
    chosen = all(given[name] in values for name, values in CHOSEN.items() if name in given)
    return file in FILES and item.originalname not in FILES[file] and chosen
