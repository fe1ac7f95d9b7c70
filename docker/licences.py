"""Writes the licences of what is installed beside this interpreter as Markdown: `make licences`.

Needs nothing but Python, so that it adds nothing to what it lists. A package without a stated licence ends it with
status 1: somebody has to look.
"""

import sys
from importlib.metadata import Distribution, distributions

# What a virtual environment has of its own, and the image has no use for.
_TOOLS = {"pip"}
# Looked at by a person.
_SILENT = {"cuda-toolkit": "none stated; holds no files, and asks for the nvidia packages of this list"}
_HEAD = """# Licences

What the image holds beside l2v itself, which is under the MIT licence. `make licences` writes this list from the
packages' own metadata, as installed from `docker/requirements.txt`. The web page's Chart.js and the API page's
Swagger UI have theirs beside them, in `app/playground/vendor/LICENSES.txt` and `app/swagger/LICENSE.txt`.

| package | version | licence |
|---|---|---|"""


def licence(package: Distribution) -> str:
    """As the package states it: the SPDX expression, else the classifiers, else the free text where it is short."""
    stated = package.metadata
    classifiers = [
        line.rsplit(" :: ", 1)[1]
        for line in stated.get_all("Classifier") or []
        if line.startswith("License :: ") and not line.endswith("OSI Approved")
    ]
    text = (stated["License"] or "").strip()
    return stated["License-Expression"] or "; ".join(classifiers) or (text if len(text.splitlines()) == 1 else "")


def rows(packages: list[Distribution]) -> list[str]:
    """One row a package, by name; raises `ValueError` with the names of those that state no licence."""
    found = {str(package.metadata["Name"]).lower().replace("_", "-"): package for package in packages}
    listed = {name: package for name, package in sorted(found.items()) if name not in _TOOLS}
    stated = {name: licence(package) or _SILENT.get(name, "") for name, package in listed.items()}
    if silent := [name for name in listed if not stated[name]]:
        raise ValueError(f"no licence is stated by {', '.join(silent)}")
    return [f"| {name} | {package.version} | {stated[name]} |" for name, package in listed.items()]


if __name__ == "__main__":
    try:
        table = rows(list(distributions()))
    except ValueError as error:
        sys.exit(f"{error}: look at their pages, and say it here")
    sys.stdout.write("\n".join([_HEAD, *table]) + "\n")
