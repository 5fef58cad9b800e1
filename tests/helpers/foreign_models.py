"""Small models and tokenizers of Hugging Face's, saved as folders; and runs of ours with random weights."""

from pathlib import Path

import torch
from torch import nn

import tokenizers
from config import DataConfig, ModelConfig, TrainConfig
from lab.data.tokenizers import load_tokenizer
from lab.runs.run import Run
from lab.runs.weights import write_tensors
from modules.transformer import Transformer
from tokenizers import decoders, models, pre_tokenizers, trainers

END = "<|endoftext|>"
LENGTH = 33
TEXTS = ["the cat and the hat", "the naïve 世界 and 🦊, 12345 times\n\n", "a text of many words, the same words again"]


def stirred_weights(model: nn.Module) -> nn.Module:
    """Moves every parameter so far that it shows in the logits, also those of norms and biases."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def gpt2(**changes) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = dict(vocab_size=300, n_positions=LENGTH, n_embd=48, n_layer=3, n_head=4)
    return stirred_weights(GPT2LMHeadModel(GPT2Config(**{**sizes, **ends(), **changes})))


def llama(**changes) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = dict(
        vocab_size=300, hidden_size=48, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=LENGTH,
    )
    return stirred_weights(LlamaForCausalLM(LlamaConfig(**{**sizes, **ends(), **changes})))


def mpt(**changes) -> nn.Module:
    from transformers import MptConfig, MptForCausalLM

    sizes = dict(vocab_size=300, d_model=48, n_heads=4, n_layers=3, max_seq_len=LENGTH)
    return stirred_weights(MptForCausalLM(MptConfig(**{**sizes, **ends(), **changes})))


def ends() -> dict[str, int]:
    """The end of text is the first id of `byte_level`'s tokenizers."""
    return dict(bos_token_id=0, eos_token_id=0, pad_token_id=0)


def byte_level(vocab_size: int = 300) -> tokenizers.Tokenizer:
    """A byte-level BPE of GPT-2's form, learned by the library itself; its first id is the end of text."""
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        TEXTS * 3,
        trainers.BpeTrainer(
            vocab_size=vocab_size, initial_alphabet=alphabet, special_tokens=[END], show_progress=False
        ),
    )
    return made


def save(model: nn.Module, folder: Path, tokenizer: tokenizers.Tokenizer | None = None, **how) -> Path:
    """Saves both as transformers does. how: arguments of the model's save_pretrained."""
    save_tokenizer(tokenizer or byte_level(), folder)
    model.save_pretrained(folder, **how)
    return folder


def save_tokenizer(tokenizer: tokenizers.Tokenizer, folder: Path, **settings) -> Path:
    from transformers import PreTrainedTokenizerFast

    settings = dict(eos_token=END) | settings
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **settings).save_pretrained(folder)
    return folder


def open_theirs(folder: Path) -> nn.Module:
    """The folder's model as transformers opens it, computing in fp32."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def open_their_tokenizer(folder: Path):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def random_run(folder: Path, name: str, model: ModelConfig, tokenizer: str = "byte") -> Run:
    """A run with random weights and without a log."""
    needed = load_tokenizer(tokenizer).vocab_size
    data = DataConfig(tokenizer=tokenizer, max_documents=60, validation_fraction=0.2)
    run = Run.create(name, model.replace(vocab_size=needed), TrainConfig(data=data, steps=1), folder)
    weights = stirred_weights(Transformer(run.model_config)).named_parameters()
    write_tensors(run.weights_path, dict(weights), {"step": 1})
    return run
