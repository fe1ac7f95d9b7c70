"""Reads all sentence-transformers files of a repository."""

from l2v.models.errors import SourceError
from l2v.models.sentence_transformers.files import MODEL_SETTINGS, MODULES, SETTINGS, Layout
from l2v.models.sentence_transformers.modules import read_modules
from l2v.models.sentence_transformers.settings import read_model_settings, read_settings
from l2v.models.sources import Source


def has_layout(source: Source) -> bool:
    """Whether the folder has sentence-transformers files.

    Raises:
        SourceError: if the folder has some of these files but no modules.json, which names the modules.
    """
    if (source.folder / MODULES).is_file():
        return True
    files = [file for file in (SETTINGS, MODEL_SETTINGS, "1_Pooling/config.json") if (source.folder / file).is_file()]
    if files:
        raise SourceError(
            f"{source.name} has {files[0]} but no {MODULES}, without which sentence-transformers ignores that file: "
            "add what is missing, or set semantics to llm2vec to ignore the folder's sentence-transformers files"
        )
    return False


def read_layout(source: Source) -> Layout:
    """Reads the files.

    Raises:
        SourceError: if a file is missing or damaged.
        UnsupportedModelError: if a file declares something that l2v does not support.
    """
    layout = Layout()
    read_model_settings(source, layout)
    read_modules(source, layout)
    read_settings(source, layout)
    return layout
