import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from evergreen.adapters.signatures import Signatures
from evergreen.errors import ArtifactError, ConfigurationError
from tests.factories import a_digest

ARTIFACT, VERDICT = a_digest("a"), a_digest("b")


@pytest.fixture
def keys(tmp_path: Path) -> Signatures:
    return Signatures(tmp_path / "keys" / "signing.pem", tmp_path / "keys" / "trusted")


def sealed(keys: Signatures) -> str:
    return keys.seal("flight_delay", ARTIFACT, VERDICT, passed=True)


def test_what_was_sealed_is_believed_and_the_same_again_is_the_same_seal(keys: Signatures) -> None:
    keys.require(sealed(keys), "flight_delay", ARTIFACT, VERDICT, passed=True)

    assert sealed(keys) == sealed(keys)


@pytest.mark.parametrize(
    ("model", "artifact", "verdict", "passed"),
    [
        ("other", ARTIFACT, VERDICT, True),
        ("flight_delay", a_digest("c"), VERDICT, True),
        ("flight_delay", ARTIFACT, a_digest("c"), True),
        ("flight_delay", ARTIFACT, VERDICT, False),
    ],
)
def test_a_seal_vouches_for_nothing_else(
    keys: Signatures, model: str, artifact: str, verdict: str, passed: bool
) -> None:
    with pytest.raises(ArtifactError, match="altered after it was judged"):
        keys.require(sealed(keys), model, artifact, verdict, passed=passed)


def test_a_payload_that_was_exchanged_under_a_signature_is_not_believed(keys: Signatures) -> None:
    envelope = json.loads(keys.seal("flight_delay", ARTIFACT, VERDICT, passed=False))
    envelope["payload"] = json.loads(sealed(keys))["payload"]

    with pytest.raises(ArtifactError, match="no signature of the 1 trusted keys"):
        keys.require(json.dumps(envelope), "flight_delay", ARTIFACT, VERDICT, passed=True)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"payload": "!", "signatures": []}'])
def test_what_is_no_envelope_is_an_artifact_error(keys: Signatures, text: str) -> None:
    with pytest.raises(ArtifactError, match="no readable envelope"):
        keys.require(text, "flight_delay", ARTIFACT, VERDICT, passed=True)


def test_who_serves_needs_the_public_key_alone_and_may_stop_believing_it(keys: Signatures, tmp_path: Path) -> None:
    seal = sealed(keys)
    serving = Signatures(tmp_path / "nowhere" / "signing.pem", tmp_path / "keys" / "trusted")
    serving.require(seal, "flight_delay", ARTIFACT, VERDICT, passed=True)
    (public,) = (tmp_path / "keys" / "trusted").glob("*.pem")
    public.unlink()

    with pytest.raises(ArtifactError, match="no signature of the 0 trusted keys"):
        serving.require(seal, "flight_delay", ARTIFACT, VERDICT, passed=True)

    assert not (tmp_path / "nowhere").exists()


def test_after_a_rotation_old_and_new_seals_are_believed(keys: Signatures, tmp_path: Path) -> None:
    old = sealed(keys)
    (tmp_path / "keys" / "signing.pem").unlink()
    new = sealed(keys)

    assert new != old
    for seal in (old, new):
        keys.require(seal, "flight_delay", ARTIFACT, VERDICT, passed=True)


def test_a_key_is_made_for_its_owner_alone_and_one_that_others_may_read_is_refused(
    keys: Signatures, tmp_path: Path
) -> None:
    sealed(keys)
    key = tmp_path / "keys" / "signing.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert [path.name for path in key.parent.iterdir() if path.name.startswith(".")] == []
    key.chmod(0o644)

    with pytest.raises(ConfigurationError, match="chmod 600"):
        sealed(keys)


def test_a_key_whose_public_half_is_trusted_no_more_seals_nothing(keys: Signatures, tmp_path: Path) -> None:
    sealed(keys)
    (old,) = (tmp_path / "keys" / "trusted").glob("*.pem")
    (tmp_path / "keys" / "signing.pem").rename(tmp_path / "old.pem")
    sealed(keys)
    old.unlink()

    with pytest.raises(ConfigurationError, match="nobody would serve what it seals"):
        sealed(Signatures(tmp_path / "old.pem", tmp_path / "keys" / "trusted"))


def test_the_only_key_revoked_is_not_trusted_again_by_sealing_with_it(keys: Signatures, tmp_path: Path) -> None:
    sealed(keys)
    (public,) = (tmp_path / "keys" / "trusted").glob("*.pem")
    public.unlink()

    with pytest.raises(ConfigurationError, match="nobody would serve what it seals"):
        sealed(keys)

    (tmp_path / "keys" / "signing.pem").unlink()
    keys.require(sealed(keys), "flight_delay", ARTIFACT, VERDICT, passed=True)
    assert not public.exists()


def test_who_dies_while_the_key_is_made_goes_on_with_the_same(
    keys: Signatures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", die)
        with pytest.raises(KeyboardInterrupt):
            sealed(keys)
    before = list((tmp_path / "keys" / "trusted").glob("*.pem"))

    keys.require(sealed(keys), "flight_delay", ARTIFACT, VERDICT, passed=True)

    assert list((tmp_path / "keys" / "trusted").glob("*.pem")) == before
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == ["signing.pem", "trusted"]


def test_a_key_of_ones_own_is_trusted_from_the_start(keys: Signatures, tmp_path: Path) -> None:
    sealed(Signatures(tmp_path / "mine" / "signing.pem", tmp_path / "elsewhere"))
    mine = Signatures(tmp_path / "mine" / "signing.pem", tmp_path / "keys" / "trusted")

    mine.require(sealed(mine), "flight_delay", ARTIFACT, VERDICT, passed=True)


def test_a_key_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_text("secret")
    path.chmod(0o600)

    with pytest.raises(ConfigurationError, match="EVERGREEN_SIGNING_KEY"):
        sealed(Signatures(path, tmp_path / "trusted"))


def test_processes_that_make_the_first_key_at_once_agree_on_one(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from evergreen.adapters.signatures import Signatures; home = Path(sys.argv[1]);"
        "print(Signatures(home / 'signing.pem', home / 'trusted').seal('m', sys.argv[2], sys.argv[3], passed=True))"
    )
    makers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), ARTIFACT, VERDICT], stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    seals = {maker.communicate(timeout=60)[0] for maker in makers}

    assert len(seals) == 1
    assert len(list((tmp_path / "trusted").glob("*.pem"))) == 1
