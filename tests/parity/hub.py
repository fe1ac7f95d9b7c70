"""Lay folders out as a Hugging Face Hub cache, so that Hub ids resolve without a network.

Standard library only, and free of this project's imports: the golden generator and the tests both use it.
"""

import hashlib
from pathlib import Path


def make_hub_cache(cache: Path, repos: dict[str, Path]) -> None:
    """Make `cache` a Hub cache (what HF_HUB_CACHE points at) in which each `id` or `id@revision` is its folder.

    The files are symlinks to the folder's own. Calling it again replaces the links, so it may add to a cache.
    """
    for name, folder in repos.items():
        repo_id, _, revision = name.partition("@")
        if not folder.is_dir():
            raise NotADirectoryError(f"{repo_id}: {folder}")
        repo = cache / ("models--" + repo_id.replace("/", "--"))
        # The Hub names a snapshot by its commit: any stable 40 hex digits do.
        commit = hashlib.sha256(repo_id.encode()).hexdigest()[:40]
        snapshot = repo / "snapshots" / commit
        snapshot.mkdir(parents=True, exist_ok=True)
        for source in sorted(folder.iterdir()):
            link = snapshot / source.name
            link.unlink(missing_ok=True)
            link.symlink_to(source.resolve())
        refs = repo / "refs"
        refs.mkdir(exist_ok=True)
        (refs / (revision or "main")).write_text(commit)
