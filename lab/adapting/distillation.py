"""The settings of a student that learns from a trained run.

    settings = student_settings(Run.open("llama-tiny-tales"), preset("llama-tiny"), temperature=3.0)
    run = Run.create("student", *settings)
    for step in train(run): ...

The student's run is like any other: it evaluates, compares and exports without its teacher. Only its training needs it.
"""

from config import DistilConfig, Preset
from lab.runs.names import runs_folder
from lab.runs.run import Run


def student_settings(teacher: Run, settings: Preset, **distil: object) -> Preset:
    """`settings`, for a training in which `teacher` teaches: with its data, its tokenizer and its vocabulary.

    distil: settings of a DistilConfig, such as temperature=3.0 and mode="blocks". Raises ConfigError for wrong ones.
    """
    model, train = settings
    in_trained = teacher.folder.resolve().parent == runs_folder().resolve()
    name = teacher.name if in_trained else str(teacher.folder.resolve())
    return Preset(
        model.replace(vocab_size=teacher.model_config.vocab_size),
        train.replace(data=teacher.train_config.data, distil=DistilConfig(**{"teacher": name, **distil})),
    )
