from __future__ import annotations

import pytest

from koalpaca_tune.data.quality import particles


def wrong(text: str) -> list[tuple[str, str]]:
    found = particles.judge(particles.candidates(text))
    return [(one.written, one.fitting) for one in [*found, *particles.after_other(text)]]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("어제 사람는 밥을 먹었다.", ("사람는", "사람은")),
        ("나무은 크게 자랍니다.", ("나무은", "나무는")),
        ("그 학교이 마음에 들었다.", ("학교이", "학교가")),
        ("우리 선생님가 오셨습니다.", ("선생님가", "선생님이")),
        ("어제 새 컴퓨터을 샀습니다.", ("컴퓨터을", "컴퓨터를")),
        ("저는 아침마다 신문를 읽어요.", ("신문를", "신문을")),
        ("형과 누나과 동생이 함께 갔다.", ("누나과", "누나와")),
        ("부산와 대구에 다녀왔다.", ("부산와", "부산과")),
        ("고속버스로 부산로 갔습니다.", ("부산로", "부산으로")),
        ("우리는 서울으로 이사했다.", ("서울으로", "서울로")),
        ("그는 학교으로 갔다.", ("학교으로", "학교로")),
        ("정답은 3를 고르면 됩니다.", ("3를", "3을")),
        ("점수가 25은 되어야 한다.", ("25은", "25는")),
        ("뉴스는 KBS을 봅니다.", ("KBS을", "KBS를")),
        ("서울(Seoul)는 수도입니다.", ("서울(Seoul)는", "서울(Seoul)은")),
    ],
)
def test_a_particle_that_does_not_fit_is_found(text: str, error: tuple[str, str]) -> None:
    assert wrong(text) == [error]


@pytest.mark.parametrize(
    "text",
    [
        "먹는 것과 가는 곳, 하는 일과 찾는 사람",
        "마을에는 가을 노을이 곱고 지을 집이 많다.",
        "나이 많은 아이 사이 차이 높이",
        "국가 작가 전문가 음악가 증가 휴가 물가",
        "결과와 효과, 사과 한 개, 의과 대학과 영어과",
        "경로와 회로와 통로와 진로, 종로 3가에서 을지로 2가까지",
        "좋은 집, 지은 이, 나은 방법, 낮은 산",
        "소나무과 식물과 장미과 나무",
        "서울(Seoul)은 크고 인공지능(AI)는 새롭다. 인공지능(AI)은 새롭다.",
        "MP3를 듣고 갤럭시 S8를 쓰고 KBS를 본다.",
        "NATO는 1949년에, OPEC은 1960년에, UNICEF는 1946년에 생겼다.",
        "1은 2보다 작고 3은 2보다 크다. 10을 5로 나눈다. 1,000은 천이다.",
        "손으로 물로 칼로 발로 집으로 길로",
        "신라는 고구려와 백제를 통일했다.",
    ],
)
def test_what_only_looks_like_a_mismatch_is_let_pass(text: str) -> None:
    assert wrong(text) == []


def test_only_candidates_go_to_kiwi() -> None:
    assert particles.candidates("저는 학교에 가는 길에 친구를 만나서 밥을 먹는 것을 보았습니다.") == []
    (one,) = particles.candidates("그 나무은 크다")
    assert (one.phrase, one.changed) == ("그 나무은 크다", "그 나무는 크다")
    assert one.changed[one.at] == "는"
