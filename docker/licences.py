"""Lists the licences of the installed packages as Markdown: `make licences`.

Uses only the standard library, because it lists every package of its own environment. Exits with status 1 if a package
states no licence, which a person must then look up.
"""

import sys
from importlib.metadata import Distribution, distributions

# Packages of every virtual environment, which are not installed from the requirements.
_TOOLS = {"pip"}
# Packages that state no licence, checked by a person.
_UNSTATED = {"cuda-toolkit": "none stated; contains no files, only dependencies on nvidia packages of this list"}
_HEAD = """# Licences

The packages in the images and their licences. l2v itself is under the MIT licence. `make licences` generates this list
from the metadata of the packages in `docker/requirements-cuda.txt`. The image for CPUs has the same packages without
those of CUDA and triton. The licences of Chart.js and Swagger UI, which the web pages use, are in
`app/playground/vendor/LICENSES.txt` and `app/swagger/LICENSE.txt`.

| package | version | licence |
|---|---|---|"""


def licence(package: Distribution) -> str:
    """The stated licence: the SPDX expression, else the classifiers, else the free text if it is one line."""
    stated = package.metadata
    classifiers = [
        line.rsplit(" :: ", 1)[1]
        for line in stated.get_all("Classifier") or []
        if line.startswith("License :: ") and not line.endswith("OSI Approved")
    ]
    text = (stated["License"] or "").strip()
    return stated["License-Expression"] or "; ".join(classifiers) or (text if len(text.splitlines()) == 1 else "")


def rows(packages: list[Distribution]) -> list[str]:
    """One row per package, sorted by name. Raises `ValueError` if a package states no licence."""
    found = {str(package.metadata["Name"]).lower().replace("_", "-"): package for package in packages}
    listed = {name: package for name, package in sorted(found.items()) if name not in _TOOLS}
    stated = {name: licence(package) or _UNSTATED.get(name, "") for name, package in listed.items()}
    if missing := [name for name in listed if not stated[name]]:
        raise ValueError(f"these packages state no licence: {', '.join(missing)}")
    return [f"| {name} | {package.version} | {stated[name]} |" for name, package in listed.items()]


if __name__ == "__main__":
    try:
        table = rows(list(distributions()))
    except ValueError as error:
        sys.exit(f"{error}. Look up their licences and add them to _UNSTATED in docker/licences.py.")
    sys.stdout.write("\n".join([_HEAD, *table]) + "\n")
