"""What MLflow shows of a release: the aliases champion, challenger and previous, and the tag `evergreen.release`.

A mirror and nothing else: MLflow's aliases know no compare-and-swap, so no decision reads them. Called by `registry.py`.
"""

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from pydantic import ValidationError

from evergreen.errors import UnknownModel
from evergreen.types import Release

ALIASES = ("champion", "challenger", "previous")
RELEASE_TAG = "evergreen.release"


def mirror(client: MlflowClient, release: Release, *, tag_alone: bool = False) -> None:
    """Make MLflow say what the release says; with `tag_alone` the aliases stay where they are.

    An alias whose version was deleted is passed over. The tag is written last: where it tells of this revision, the
    aliases once did too.
    """
    aliases, told = mirrored(client, release.model)
    for alias in () if tag_alone else ALIASES:
        number, shown = getattr(release, alias), aliases.get(alias)
        if number is None and shown is not None:
            client.delete_registered_model_alias(release.model, alias)
        elif number is not None and shown != number:
            try:
                client.set_registered_model_alias(release.model, alias, str(number))
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                if shown is not None:  # rather none than one that lies
                    client.delete_registered_model_alias(release.model, alias)
    if told != release:
        client.set_registered_model_tag(release.model, RELEASE_TAG, release.model_dump_json())


def mirrored(client: MlflowClient, model: str) -> tuple[dict[str, int], Release | None]:
    """Version by alias, and the release that was mirrored last (None: there is none that can be read).

    Raises `UnknownModel` when the registry does not hold the model.
    """
    try:
        found = client.get_registered_model(model)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise UnknownModel(f"the registry holds no model {model!r}. Run `retrain` for it.") from error
    try:
        told = Release.model_validate_json(found.tags[RELEASE_TAG])
    except (KeyError, ValidationError):  # never mirrored, or written by hand: as good as none
        told = None
    return {alias: int(number) for alias, number in found.aliases.items() if alias in ALIASES}, told
