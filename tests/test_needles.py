"""A row is found wherever enough of it stands, under any key; ordinary language isn't."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from undertone.errors import Problem
from undertone.params import Source
from undertone.privacy import needles
from undertone.privacy.needles import WINDOW, Needles, Row

LONG = "The foreman of the Riverside bakery asked my sister whether she planned to have children soon."
CHINESE = "隔壁王姐去年生完孩子以后就被经理从原来的岗位上调走了"
SHORT = "fire that girl tomorrow"


def made(*texts: str, group: str = "", id_: str = "") -> Needles:
    return Needles.made(
        [Row("lab", id_ or str(at), text, group) for at, text in enumerate(texts, start=1)]
    )


def rows(found: list[needles.Hit]) -> list[str]:
    return [hit.row for hit in found]


def kinds(found: list[needles.Hit]) -> set[str]:
    return {hit.kind for hit in found}


@pytest.fixture(scope="module")
def some() -> Needles:
    return made(LONG, CHINESE, SHORT)


TEXTS = st.text(st.characters(categories=["Lu", "Ll", "Nd", "Zs", "Po"]), min_size=WINDOW, max_size=300)


@settings(max_examples=60, deadline=None)
@given(
    text=TEXTS.filter(lambda text: needles._size(text) >= WINDOW and "http" not in text),
    before=st.binary(max_size=50),
    after=st.binary(max_size=50),
)
def test_a_text_of_enough_letters_is_found_among_any_bytes(
    text: str, before: bytes, after: bytes
) -> None:
    needles_ = made("something of no matter at all, but long", text)
    assert set(rows(needles_.found(before + text.encode() + after))) == {"2"}


def test_a_text_cut_in_half_is_found_from_either_side(some: Needles) -> None:
    half = len(LONG) // 2
    for part in (LONG[:half], LONG[half:], LONG[half // 2 : -half // 2], LONG[: WINDOW + 6]):
        assert rows(some.found(part)) == ["1"]
    for part in (CHINESE[:11], CHINESE[-11:]):
        assert rows(some.found(part.encode())) == ["2"]


def test_less_than_a_window_is_ordinary_language(some: Needles) -> None:
    assert not some.found("The foreman of the Riverside")
    assert not some.found(CHINESE[:10])


def test_the_first_and_the_last_of_many_rows_are_found() -> None:
    texts = [f"{LONG[at % 50 :]} number {at * 7919}" for at in range(3000)]
    many = made(*texts)
    assert "1" in rows(many.found(texts[0]))
    assert "3000" in rows(many.found(texts[-1]))
    assert many.counts["rows"] == 3000


def test_a_text_across_two_blocks_is_found(some: Needles) -> None:
    for place in (*range(needles.BLOCK - 100, needles.BLOCK + 2, 17), needles.CHUNK - 40):
        assert rows(some.found(b"x" * place + LONG.encode() + b"y" * 10)) == ["1"]
        assert rows(some.found(b"\xff\x00" * (place // 2) + CHINESE.encode("utf-16-le"))) == ["2"]


def test_a_short_row_is_found_where_it_stands_by_itself(some: Needles) -> None:
    for content in (
        f'["{SHORT}"]',
        f"a\n{SHORT}!\nb",
        f"1,{SHORT},0",
        f"<t>{SHORT.upper()}</t>",
        SHORT,
        f"'{SHORT}...'",
    ):
        assert rows(some.found(content)) == ["3"], content
        assert rows(some.found(content.encode())) == ["3"], content
    assert not some.found(f"They said to fire, {SHORT}, and that was that.")


def test_rows_too_short_are_counted() -> None:
    few = made("ok", "yes", LONG, "好的")
    assert few.counts["rows"] == 4
    assert few.counts["rows too short"] == 3
    assert not few.found(b"ok, yes\nok\n")


@pytest.mark.parametrize(
    ("text", "told", "kind"),
    [
        (
            "write to Eva.Maria+x@mail.example-uni.org please",
            "x eva.maria+x@MAIL.example-uni.org.",
            "e-mail",
        ),
        ("写信给wang_fang@example.cn吧", "<wang_fang@example.cn>", "e-mail"),
        ("call +86 138-0013-8042 now", "tel: 13800138042?", "phone"),
        ("call (555) 018-2297", '{"n": "555-018-2297"}', "phone"),
        ("as @night_owl_1977 wrote", "hello night_owl_1977", "name"),
        ("a canary zq12345678901kx sings", "{'zq12345678901kx': 4}", "token"),
    ],
)
def test_what_names_a_person_is_found_alone(text: str, told: str, kind: str) -> None:
    found = made("nothing", text).found(told.encode())
    assert rows(found) == ["2"]
    assert kinds(found) == {kind}


def test_user_names_and_ids_are_found_and_plain_numbers_are_not() -> None:
    named = made("ok", group="heron_7731", id_="1499817263548172311")
    assert kinds(named.found(b"by heron_7731, see 1499817263548172311")) == {"name", "id"}
    assert not named.found(b"sheron_77310 and 91499817263548172311")
    plain = Needles.made(
        [Row("lab", "00017", "ok", "finch"), Row("lab", "a.xlsx-b-77", "no", own_id=False)]
    )
    assert not plain.found(b"00017 finch a.xlsx-b-77")
    assert plain.counts["names too short"] == 1
    assert plain.counts["ids too short"] == 1


def test_numbers_that_hold_a_phone_number_by_chance_are_none() -> None:
    phone = made("call 0171 5550 1234")
    assert rows(phone.found(b"0171/5550-1234")) == ["1"]
    for chance in (
        b"0.017155501234",
        b"9017155501234",
        b"0171555012345",
        b"01,7155, and so on to 501234567",
    ):
        assert not phone.found(chance)


def test_dates_and_round_sums_are_no_phone_numbers() -> None:
    assert made("since 2023-01-02 2024 there were 1000000000 of them 12.5").counts["phones"] == 0


def test_what_is_public_is_no_needle() -> None:
    open_ = "It is a myth that the leave rules of this country help nobody but the employers."
    row = f"{open_} {LONG}"
    found = Needles.made(
        [Row("lab", "1", row), Row("lab", "2", open_), Row("lab", "3", SHORT)], [open_, f"x {SHORT} y"]
    )
    assert not found.found(open_)
    assert not found.found(f'"{SHORT}"')
    assert rows(found.found(row)) == ["1"]
    assert found.counts["rows that are public"] == 1


def test_the_address_of_a_site_is_no_needle() -> None:
    found = made("https://www.an-internet-forum-for-everybody.example/watch?v=kq83jd02mvn4 says so")
    assert not found.found("https://www.an-internet-forum-for-everybody.example/about")


def test_no_key_is_used_twice_and_each_gives_other_hashes() -> None:
    one, other = made(LONG), made(LONG)
    assert not set(one._keys.tolist()) & set(other._keys.tolist())
    assert rows(one.found(LONG)) == rows(other.found(LONG)) == ["1"]
    assert one.digest(b"k" * 32) == other.digest(b"k" * 32) != one.digest(b"l" * 32)
    assert one.digest(b"k" * 32) != made(LONG + "!").digest(b"k" * 32)


def test_random_bytes_hold_nothing(some: Needles) -> None:
    rng = np.random.default_rng(1)
    assert not some.found(rng.bytes(3_000_000))


def test_rows_come_from_tables_and_from_cells_that_no_table_holds(tmp_path: Path) -> None:
    raw = tmp_path / "data/raw/lab"
    raw.mkdir(parents=True)
    secret = "A note of the coder that no column of the settings names, about the writer's family."
    frame = pd.DataFrame(
        {"comment": [LONG, CHINESE], "note": ["", secret], "author": ["heron_7731", "ann"]}
    )
    frame.to_excel(raw / "a.xlsx", index=False)
    frame.to_csv(raw / "b.csv", index=False, encoding="gb18030")
    frame[:1].to_json(raw / "c.jsonl", orient="records", lines=True)
    table = pd.DataFrame(
        {"id": ["r1"], "text": [LONG], "group": ["heron_7731"], "file": ["a"], "sheet": [""], "row": [2]}
    )
    table.to_parquet(tmp_path / "comments.parquet")
    found = Needles.made(needles.read(raw, [tmp_path / "comments.parquet"], "lab"))
    assert rows(found.found(LONG)) == ["r1"]
    assert rows(found.found("heron_7731")) == ["r1"]
    assert rows(found.found(secret)) == ["a.xlsx!Sheet1:3"]
    assert rows(found.found(CHINESE)) == ["a.xlsx!Sheet1:3"]
    before = Needles.made(needles.read(raw, [], "lab"))  # nothing ingested yet
    assert rows(before.found(LONG)) == ["a.xlsx!Sheet1:2"]


RUSSIAN = "соседка из зелёного дома на углу рассказала мне что её пенсия так и не пришла прошлой зимой"


def test_raw_tables_are_read_as_their_source_says(tmp_path: Path) -> None:
    how = Source(text="text", group="who", delimiter=";", header=2, encoding="cp1251")
    lines = f"export of 2024;;\nid;text;who;note\nrow-1;{SHORT};heron_7731;{RUSSIAN}\n"
    (tmp_path / "a.csv").write_text(lines, "cp1251")
    found = Needles.made(needles.read(tmp_path, [], "lab", how))
    assert found.counts["rows"] == 1
    assert rows(found.found("by heron_7731")) == ["a.csv:3"]
    assert rows(found.found(f'"{SHORT}"')) == ["a.csv:3"]
    assert rows(found.found(RUSSIAN)) == ["a.csv:3"]


def test_a_number_of_a_workbook_is_searched_for_as_it_reads(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"text": [SHORT], "phone": [49171555012], "user": [441977123456.0], "share": [0.123456789012]}
    )
    frame.to_excel(tmp_path / "a.xlsx", index=False, startrow=2)
    how = Source(text="text", group="user", header=3)
    found = Needles.made(needles.read(tmp_path, [], "lab", how))
    assert kinds(found.found("tel 49171555012")) == {"phone"}
    assert "name" in kinds(found.found("by 441977123456"))
    assert found.counts["phones"] == 2
    assert rows(found.found(f'"{SHORT}"')) == ["a.xlsx!Sheet1:4"]


def test_a_broken_table_is_searched_for_or_told_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"text": "{CHINESE}"}}\n{{"text": "{LONG}\n')
    assert rows(Needles.made(needles.read(tmp_path, [], "lab")).found(LONG)) == ["a.jsonl:3"]
    for name in ("b.parquet", "b.xlsx"):
        path = tmp_path / name
        path.write_bytes((b"PAR1" if name == "b.parquet" else b"PK\x03\x04") + LONG.encode())
        with pytest.raises(Problem, match=f"{name}: can't be read to be searched for"):
            needles.read(tmp_path, [], "lab")
        path.unlink()
    (tmp_path / "comments.parquet").write_bytes(b"PAR1" + LONG.encode())
    with pytest.raises(Problem, match=r"comments.parquet: can't be read to be searched for"):
        needles.read(tmp_path / "none", [tmp_path / "comments.parquet"], "lab")


@pytest.mark.parametrize(
    ("text", "encodings"),
    [
        (RUSSIAN, ("cp1251", "koi8_r")),
        (
            "角の緑の家の隣人が去年の冬に年金が届かなかったと私に話してくれました。",
            ("shift_jis", "euc_jp"),
        ),
        ("角落綠色房子裡的鄰居告訴我她的退休金去年冬天一直沒有到帳", ("big5",)),
        ("초록 대문 집 이웃이 지난겨울 연금이 끝내 오지 않았다고 말했습니다", ("euc_kr",)),
    ],
)
def test_a_row_is_found_in_the_older_charsets_of_its_letters(
    text: str, encodings: tuple[str, ...]
) -> None:
    found = made("nothing of it", text)
    for encoding in encodings:
        assert rows(found.found(b"id,1\n" + text.encode(encoding) + b"\n")) == ["2"], encoding


def test_every_public_text_is_left_out_however_many_there_are() -> None:
    texts = [f"{LONG} {at}" for at in range(20)]
    found = Needles.made([Row("lab", "1", LONG), Row("lab", "2", CHINESE)], texts)
    assert not found.found(LONG)
    assert rows(found.found(CHINESE)) == ["2"]
