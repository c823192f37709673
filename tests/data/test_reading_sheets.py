from __future__ import annotations

import base64
import datetime
import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from koalpaca_tune.data.reading import workbook
from koalpaca_tune.data.reading.readers import read
from koalpaca_tune.data.rows import Rejected, Row
from koalpaca_tune.errors import KoalpacaError

Write = Callable[..., Path]
Cells = Sequence[Sequence[str | float | bool | None]]

XLS = (
    "c-rk)O=uHA6#izjX?{r4O-+SXD4}50S}4U!FYT(J^<s&FC?aUu<{&MpgkIW%R%?!e;7RdP=*3I5Iru|*NClySP-ziC6cRmp5?b)k"
    "W_|NAi>c<&fGsNXE%WB>dv9jm&b)cMvu~Fpg_-%5B7Q+1JSaH<)K$m?m4JI=f%J|eS-196aWwuZ1pKs+bzbD^-}vMj%JnY7z!P(k"
    "DDaueC0xV6SSlIYMI2`z5<>dWOH|+?Ny2DmuNs*SG2O%TF<UM$J<5_hOnb?;ATDCr9_Z*%QGCH@V_g`s-)G$B153Kmge4ipH|~nE"
    "try4AR}-Uur=ryiVHUJ*{mE1^ofs`3N((rPbteX_xjQu<)AHSw3y}Q#R=KZ={GMR~Q*f?ufM*cGibrY;v6x@WZlH@68eB-f^tvZU"
    ")p|C+K-H;N=jKg_crJ$Vced1LS3kZC$_&jr+S;<C>p9XxM2FG9e1zlOqMW_)=-bNa!MJ^yB~zTm%ej8PbPo=0$`;f(%o_HPZ9AAA"
    "W_pWz-N$?j(<nJkb$h%?F(;?l<~D2FX`CaBRr^2%e~|dh*E7#sGhggO#Lx8?C!=%k?HRPuyJwi%%WE2)qEkG$FY&^5YoYSOC#KE6"
    "<p{rFDc>FSLTkV#g3Lykmha^32xTv-*bBCoJzh70>`w$?Wp7lmH`v~z`Y+GEoY_935l^L(GS*K7p`oFnp`oFnp`o!;5b9fAew~`?"
    "upv(jKJ{N`lS)bdCi!o17Grdc)4}uvQdFlgQB(Zvg;%(JiEXxV{})P}r_s|G!65rFQgi&$iBD8M&$b&{e{KuaI)14ZKX-WiANI=4"
    "z5"
)
"""An old workbook with the sheet 상담: 질문, 답변; 안녕, 3.0; 뭐 해?, 펲시 (written with xlwt; zlib, base 85)."""


def zipped(parts: dict[str, str | bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in parts.items():
            file.writestr(name, content)
    return packed.getvalue()


def _cell(at: str, value: str | float | bool | None, style: str = "") -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return f'<c r="{at}" t="b"><v>{int(value)}</v></c>'
    if isinstance(value, str):
        return f'<c r="{at}" t="inlineStr"><is><t xml:space="preserve">{escape(value)}</t></is></c>'
    return f'<c r="{at}"{style}><v>{value!r}</v></c>'


MAIN = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_RELATION = '<Relationship Id="{id}" Type="' + RELATIONS + '/{type}" Target="{target}"/>'


def _relations(*given: tuple[str, str, str]) -> str:
    inside = "".join(_RELATION.format(id=id, type=type, target=target) for id, type, target in given)
    return f'<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{inside}</Relationships>'


def xlsx(
    sheets: dict[str, Cells], *, dates: Sequence[str] = (), first: tuple[int, int] = (1, 1), hidden: str = ""
) -> bytes:
    """A workbook; cells begin at `first` (row, column); numbers in the columns `dates` are dates."""
    parts: dict[str, str | bytes] = {}
    for n, cells in enumerate(sheets.values(), 1):
        rows = []
        for r, row in enumerate(cells, first[0]):
            names = [chr(64 + c) for c in range(first[1], first[1] + len(row))]
            found = [
                _cell(f"{name}{r}", cell, ' s="1"' * (name in dates)) for name, cell in zip(names, row, strict=True)
            ]
            rows.append(f'<row r="{r}">{"".join(found)}</row>')
        parts[f"xl/worksheets/sheet{n}.xml"] = (
            f"<worksheet {MAIN}><sheetData>{''.join(rows)}</sheetData></worksheet>"
        )
    formats = '<xf numFmtId="0"/><xf numFmtId="22"/>'
    states = {hidden: ' state="hidden"'}
    entries = "".join(
        f'<sheet name="{escape(name)}" sheetId="{n}" r:id="rId{n}"{states.get(name, "")}/>'
        for n, name in enumerate(sheets, 1)
    )
    styles = [(f"rId{len(sheets) + 1}", "styles", "styles.xml")]
    inner = [(f"rId{n}", "worksheet", f"worksheets/sheet{n}.xml") for n in range(1, len(sheets) + 1)]
    return zipped(
        {
            "_rels/.rels": _relations(("rId1", "officeDocument", "xl/workbook.xml")),
            "xl/workbook.xml": f'<workbook {MAIN} xmlns:r="{RELATIONS}"><sheets>{entries}</sheets></workbook>',
            "xl/_rels/workbook.xml.rels": _relations(*inner, *styles),
            "xl/styles.xml": f"<styleSheet {MAIN}><cellXfs>{formats}</cellXfs></styleSheet>",
            **parts,
        }
    )


def ods(rows: Cells) -> bytes:
    def cell(value: object) -> str:
        return (
            f'<table:table-cell office:value-type="string"><text:p>{escape(str(value))}</text:p></table:table-cell>'
        )

    inside = "".join(f"<table:table-row>{''.join(map(cell, row))}</table:table-row>" for row in rows)
    spaces = " ".join(
        f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"' for name in ("office", "table", "text")
    )
    return zipped(
        {
            "mimetype": "application/vnd.oasis.opendocument.spreadsheet",
            "META-INF/manifest.xml": "<manifest/>",
            "content.xml": f"<office:document-content {spaces}><office:body><office:spreadsheet>"
            f'<table:table table:name="상담">{inside}</table:table>'
            "</office:spreadsheet></office:body></office:document-content>",
        }
    )


def xlsb(rows: Cells) -> bytes:
    """A binary workbook: records of type, length and payload ([MS-XLSB] 2.1.4)."""

    def record(kind: int, payload: bytes = b"") -> bytes:
        type = bytes([kind]) if kind < 128 else bytes([kind & 0x7F | 0x80, kind >> 7])
        assert len(payload) < 128
        return type + bytes([len(payload)]) + payload

    def wide(text: str) -> bytes:
        return struct.pack("<I", len(text)) + text.encode("utf-16-le")

    book = (
        record(143)
        + record(156, struct.pack("<II", 0, 1) + wide("rId1") + wide("상담"))
        + record(144)
        + record(132)
    )
    sheet = record(129) + record(148, struct.pack("<IIII", 0, len(rows), 0, 9)) + record(145)
    for r, row in enumerate(rows):
        sheet += record(0, struct.pack("<I", r) + bytes(13))
        for c, value in enumerate(row):
            at = struct.pack("<II", c, 0)
            sheet += (
                record(6, at + wide(value)) if isinstance(value, str) else record(5, at + struct.pack("<d", value))
            )
    return zipped(
        {
            "xl/workbook.bin": book,
            "xl/_rels/workbook.bin.rels": _relations(("rId1", "worksheet", "worksheets/sheet1.bin")),
            "xl/worksheets/sheet1.bin": sheet + record(146) + record(130),
        }
    )


CHAT: Cells = [["질문", "답변"], ["안녕", 3.0], ["뭐 해?", "펲시"]]
BOOKS = {
    "a.xlsx": xlsx({"상담": CHAT}),
    "a.xlsm": xlsx({"상담": CHAT}),
    "a.xls": zlib.decompress(base64.b85decode(XLS)),
    "a.xlsb": xlsb(CHAT),
    "a.ods": ods([["질문", "답변"], ["안녕", "3"], ["뭐 해?", "펲시"]]),
    "new-under-an-old-name.xls": xlsx({"상담": CHAT}),
    "old-under-a-new-name.xlsx": zlib.decompress(base64.b85decode(XLS)),
}


@pytest.mark.parametrize("name", BOOKS)
def test_workbooks_of_every_kind(write: Write, name: str) -> None:
    opened = read(write(name, BOOKS[name]))
    assert (opened.format, opened.sheet, opened.columns) == ("workbook", "상담", ("질문", "답변"))
    assert (opened.encoding, opened.delimiter, opened.compression) == (None, None, None)
    assert list(opened.rows) == [
        Row(f"{name}!상담:2", {"질문": "안녕", "답변": "3"}),
        Row(f"{name}!상담:3", {"질문": "뭐 해?", "답변": "펲시"}),
    ]


def test_cells_are_what_a_person_sees(write: Write) -> None:
    seen = [
        (12345.0, "12345"),
        (-0.0, "0"),
        (0.1 + 0.2, "0.3"),
        (1234567890123456.0, "1234567890123456"),
        (1.5e-7, "1.5e-07"),
        (True, "TRUE"),
        (False, "FALSE"),
        ("  앞뒤 \n줄", "  앞뒤 \n줄"),
        ("1.0", "1.0"),
    ]
    cells: Cells = [["질문", "수"], *([f"{n}", value] for n, (value, _) in enumerate(seen))]
    found = [
        item.values["수"] for item in read(write("a.xlsx", xlsx({"시트": cells}))).rows if isinstance(item, Row)
    ]
    assert found == [text for _, text in seen]
    days: Cells = [["질문", "때"], ["가", 45296.0], ["나", 45296.5561921296], ["다", 0.25]]
    opened = read(write("b.xlsx", xlsx({"시트": days}, dates="B")))
    assert [item.values["때"] for item in opened.rows if isinstance(item, Row)] == [
        "2024-01-05",
        "2024-01-05 13:20:55",
        "06:00:00",
    ]
    assert workbook.text(datetime.timedelta(hours=30, seconds=5)) == "30:00:05"


def test_rows_have_the_numbers_of_the_sheet_and_empty_ones_are_passed_over(write: Write) -> None:
    cells: Cells = [
        ["2024년 상담 목록", None, None],
        ["질문", None, "답변"],
        ["안녕", "메모", "네"],
        [None, None, None],
        [None, "메모만", None],
        ["합친 칸", None, None],
    ]
    path = write("a.xlsx", xlsx({"시트": cells}, first=(3, 2)))
    items = list(read(path).rows)
    assert [(item.origin, type(item)) for item in items] == [
        ("a.xlsx!시트:5", Row),
        ("a.xlsx!시트:7", Rejected),
        ("a.xlsx!시트:8", Row),
    ]
    assert [item.values for item in items if isinstance(item, Row)] == [
        {"질문": "안녕", "답변": "네"},
        {"질문": "합친 칸", "답변": ""},
    ]
    assert [(item.problem.code, item.problem.where) for item in items if isinstance(item, Rejected)] == [
        ("row-empty", "a.xlsx!시트:7")
    ]


def test_the_first_sheet_that_is_not_empty_or_the_one_that_is_named(write: Write) -> None:
    other: Cells = [["Q", "A"], ["a", "b"]]
    path = write("a.xlsx", xlsx({"숨김": other, "빈": [], "하나": CHAT, "둘": other}, hidden="숨김"))
    assert read(path).sheet == "하나"
    opened = read(path, sheet="둘")
    assert (opened.sheet, opened.columns) == ("둘", ("Q", "A"))
    assert read(path, sheet="숨김").columns == ("Q", "A")
    with pytest.raises(KoalpacaError, match="Sheets: 숨김, 빈, 하나, 둘") as caught:
        read(path, sheet="셋")
    assert caught.value.problems[0].code == "input-sheet"
    with pytest.raises(KoalpacaError, match="'빈' is empty"):
        read(path, sheet="빈")


def test_a_lone_cell_far_away_is_refused_and_ends_nothing(write: Write) -> None:
    far = f'<row r="1">{_cell("A1", "질문")}</row><row r="1048576">{_cell("XFD1048576", "답변")}</row>'
    book = zipfile.ZipFile(io.BytesIO(BOOKS["a.xlsx"]))
    parts: dict[str, str | bytes] = {name: book.read(name) for name in book.namelist()}
    parts["xl/worksheets/sheet1.xml"] = f"<worksheet {MAIN}><sheetData>{far}</sheetData></worksheet>"
    with pytest.raises(KoalpacaError, match="One cell far from the table") as caught:
        read(write("a.xlsx", zipped(parts)))
    assert caught.value.problems[0].code == "file-workbook"


def test_a_workbook_may_be_left_half_read(write: Write) -> None:
    cells: Cells = [["질문", "답변"], *([f"{n}", "가나다" * 50] for n in range(20_000))]
    rows = read(write("a.xlsx", xlsx({"시트": cells}))).rows
    assert next(rows) == Row("a.xlsx!시트:2", {"질문": "0", "답변": "가나다" * 50})
    rows.close() if hasattr(rows, "close") else None


def locked() -> bytes:
    """The old workbook with its stream renamed to that of an encrypted new one."""
    old, new = "Workbook", "EncryptedPackage"
    entry = old.encode("utf-16-le").ljust(64, b"\0") + struct.pack("<H", 2 * len(old) + 2)
    book = BOOKS["a.xls"]
    assert book.count(entry) == 1
    return book.replace(entry, new.encode("utf-16-le").ljust(64, b"\0") + struct.pack("<H", 2 * len(new) + 2))


BAD = {
    "empty.xlsx": (b"", "file-empty", "nothing in it"),
    "text.xlsx": ("질문,답변\n가,나\n".encode(), "file-workbook", "end in .csv"),
    "text.xls": ("질문\t답변\n".encode("cp949"), "file-workbook", "end in .csv"),
    "noise.xls": (bytes(range(256)), "file-workbook", "something else"),
    "2003.xls": (b'<?xml version="1.0"?><Workbook/>', "file-workbook", "it is XML"),
    "zip.xlsx": (zipped({"a.txt": "가"}), "file-workbook", "cannot be read as a workbook"),
    "half.xlsx": (BOOKS["a.xlsx"][:900], "file-workbook", "cannot be read as a workbook"),
    "half.xls": (BOOKS["a.xls"][:3000], "file-workbook", "cannot be read as a workbook"),
    "half.ods": (BOOKS["a.ods"][:400], "file-workbook", "cannot be read as a workbook"),
    "locked.xlsx": (locked(), "file-workbook", "password"),
    "blank.xlsx": (xlsx({"시트": [], "둘": [[None]]}), "file-empty", "its sheets are empty"),
    "header.xlsx": (xlsx({"시트": [["질문", "답변"]]}), "file-empty", "no rows"),
    "title.xlsx": (xlsx({"시트": [["제목", None], [None, None]]}), "file-empty", "no rows"),
    "twice.xlsx": (xlsx({"시트": [["질문", "질문"], ["가", "나"]]}), "table-header", "twice"),
    "page.xls": (b"<html><body>\xbe\xc8\xb3\xe7</body></html>", "file-workbook", "without a table"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_workbook_is_one_clear_line(write: Write, name: str) -> None:
    content, code, said = BAD[name]
    path = write(name, content)
    with pytest.raises(KoalpacaError, match=said) as caught:
        list(read(path).rows)
    assert [problem.code for problem in caught.value.problems] == [code]
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


PAGE = """<html><head><meta http-equiv="Content-Type" content="text/html; charset=euc-kr">
<style>td {{ mso-number-format:"\\@"; }}</style></head><body>
<table border=1><tr><td colspan=3>2024년 민원 목록</td></tr>
<tr><th>번호</th><th>질문</th><th>답변</th></tr>
<tr><td>1</td><td>여권은<br>어디서?</td><td>  구청
 민원실&nbsp;&lt;1층&gt; </td></tr>
<TR><TD rowspan=2>2<TD>가<TD>나
<tr><td>다<td>라</tr>
<tr><td></td><td> </td><td></td></tr>
<tr><td>3</td><td>넘침</td></tr>
<tr><td colspan=2>합친</td><td><table><tr><td>속</td></tr></table></td></tr>
</table><table><tr><td>다른</td><td>표</td></tr></table></body></html>"""


@pytest.mark.parametrize("block", [3, 1 << 18])
@pytest.mark.parametrize("encoding", ["cp949", "utf-8-sig", "utf-16"])
def test_a_web_page_named_xls_is_read(
    write: Write, monkeypatch: pytest.MonkeyPatch, encoding: str, block: int
) -> None:
    monkeypatch.setattr("koalpaca_tune.data.reading.encodings._BLOCK", block)
    opened = read(write("민원.xls", PAGE.replace("{{", "{").replace("}}", "}"), encoding))
    assert (opened.format, opened.encoding, opened.columns) == ("html", encoding, ("번호", "질문", "답변"))
    items = list(opened.rows)
    assert [item.values for item in items if isinstance(item, Row)] == [
        {"번호": "1", "질문": "여권은\n어디서?", "답변": "구청 민원실 <1층>"},
        {"번호": "2", "질문": "가", "답변": "나"},
        {"번호": "", "질문": "다", "답변": "라"},
        {"번호": "합친", "질문": "", "답변": "속"},
    ]
    assert [(item.origin, item.problem.code) for item in items if isinstance(item, Rejected)] == [
        ("민원.xls:9", "row-empty"),
        ("민원.xls:10", "row-fields"),
    ]
