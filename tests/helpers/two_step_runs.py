"""A run of two logged steps, made without training."""

from pathlib import Path

from config import DataConfig, ModelConfig, ScheduleConfig, TrainConfig
from lab.runs.run import Run
from lab.runs.weights import write_tensors
from modules.transformer import Transformer

MODEL = ModelConfig(vocab_size=257, context_length=16, n_layers=1, n_heads=2, width=16)
DATA = DataConfig(tokenizer="byte", max_documents=60)
TRAIN = TrainConfig(data=DATA, steps=4, schedule=ScheduleConfig(warmup_steps=0))
LOG = "step,tokens,seconds,loss,validation_loss,learning_rate,gradient_norm,tokens_per_second,memory\n"


def two_steps_done(folder: Path) -> Run:
    """The run "one", with weights."""
    run = Run.create("one", MODEL, TRAIN, folder)
    weights = dict(Transformer(MODEL).named_parameters())
    write_tensors(run.weights_path, weights, {"step": 2, "validation_loss": 5.25})
    run.log_path.write_text(LOG + "1,64,0.1,5.5,,0.001,1.0,640,1000\n2,128,0.2,5.4,5.25,0.001,1.0,640,1000\n")
    return run
