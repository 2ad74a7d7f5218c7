"""Fetches one file of a Hugging Face repository: `REPOSITORY REVISION FILE FOLDER`.

A process of its own, since the library has threads, signals and an HTTP client that a daemon on
trio can neither cancel nor time out. It goes on with what an earlier call left in FOLDER.
"""

import sys

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)


def main(repository: str, revision: str, file: str, folder: str) -> int:
    """The exit status: 0 once the file is in `folder`; else a sentence is on stderr."""
    try:
        hf_hub_download(repository, file, revision=revision, local_dir=folder)
    except LocalEntryNotFoundError:  # It is an EntryNotFoundError too, so it goes first.
        why = "the hub could not be reached."
    except GatedRepoError:
        why = "its owner wants you to ask for access first."
    except RepositoryNotFoundError:
        why = "there is no such repository, or it is a private one."
    except RevisionNotFoundError:
        why = f"it has no revision {revision}."
    except EntryNotFoundError:
        why = "that revision has no such file."
    except HFValidationError:
        why = "this is no name of a repository."
    except (HfHubHTTPError, OSError) as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0]
    else:
        return 0
    sys.stderr.write(f"{why}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[-4:]))
