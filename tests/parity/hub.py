"""Lays folders out as a Hugging Face Hub cache, so that Hub ids resolve without a network.

Uses the standard library only, since the generator of the goldens runs in another environment than the tests.
"""

import hashlib
from pathlib import Path


def make_hub_cache(cache: Path, repos: dict[str, Path]) -> None:
    """Make `cache` a Hub cache (for HF_HUB_CACHE) in which each `id` or `id@revision` resolves to a folder.

    The files are symlinks. Further calls add to the cache and replace existing links.
    """
    for name, folder in repos.items():
        repo_id, _, revision = name.partition("@")
        if not folder.is_dir():
            raise NotADirectoryError(f"{repo_id}: {folder}")
        repo = cache / ("models--" + repo_id.replace("/", "--"))
        # The name of a snapshot is a commit: 40 hex digits, others for each revision.
        commit = hashlib.sha256(name.encode()).hexdigest()[:40]
        snapshot = repo / "snapshots" / commit
        snapshot.mkdir(parents=True, exist_ok=True)
        for source in sorted(folder.iterdir()):
            link = snapshot / source.name
            link.unlink(missing_ok=True)
            link.symlink_to(source.resolve())
        refs = repo / "refs"
        refs.mkdir(exist_ok=True)
        (refs / (revision or "main")).write_text(commit)
