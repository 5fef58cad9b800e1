"""The tests of `make test-gpu`: these files, but for the tests named, which are about a CPU or about files.

They run on the device of `--device`, as tests/helpers/devices.py says.
"""

import pytest

from settings.paths import ROOT

FILES = {
    "modules/test_laws.py": (),
    "modules/test_parity.py": (),
    "modules/test_kernels.py": (
        "test_bf16_attention_is_as_exact_as_bf16_allows", "test_written_out_attention_serves_only_where_it_is_faster",
        "test_the_logits_never_exist_all_at_once",
    ),
    "modules/test_flex.py": (),
    "modules/test_positions.py": (),
    "modules/test_modules.py": (),
    "modules/test_factored.py": (),
    "modules/test_future.py": (
        "test_greedy_generation_follows_the_forward_pass_with_and_without_the_cache",
    ),
    "modules/test_multi_token.py": ("test_heads_go_one_after_the_other",),
    "modules/test_lora.py": (),
    "modules/test_heads.py": (),
    "tracing/test_tracing.py": ("test_attention_weights_are_logged_during_generation",),
    "lab/training/test_running_ahead.py": (),
    "lab/training/test_training.py": (),
    "lab/test_devices.py": (),
}


def is_for_gpu(item: pytest.Item) -> bool:
    file = item.path.relative_to(ROOT / "tests").as_posix()
    return file in FILES and item.originalname not in FILES[file]
