"""DICOM as pydicom writes it: scaling, windows, frames, and each transfer syntax."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from retfiner.common.errors import InputError
from retfiner.vision import count_images, iter_images, read_image
from retfiner.vision.images import dicom as reader
from retfiner.vision.images import open_images, why_unusable
from tests.helpers.image_files import (
    assert_read,
    assert_refused,
    bscans,
    compressed_by_pillow,
    dicom,
    write_dicom,
)

EIGHT = bscans(3)
SIXTEEN = bscans(3, top=65535)
LUMA = np.array([0.299, 0.587, 0.114])


def read(folder, pixels, name="a.dcm", **elements):
    return read_image(write_dicom(folder / name, dicom(pixels, **elements)))


def all_of(path):
    return np.stack(list(iter_images(path)))


def test_stored_bits_are_the_scale(tmp_path):
    np.testing.assert_allclose(read(tmp_path, EIGHT[0]), EIGHT[0] / 255, atol=1e-7)
    np.testing.assert_allclose(read(tmp_path, SIXTEEN[0]), SIXTEEN[0] / 65535, atol=1e-7)
    twelve = (SIXTEEN[0] // 16).astype(np.uint16)
    image = read(tmp_path, twelve, BitsStored=12)
    np.testing.assert_allclose(image, twelve / 4095, atol=1e-7)
    dark = read(tmp_path, EIGHT[0] // 4)
    assert (dark.dtype, dark.max()) == (np.float32, pytest.approx(63 / 255))


def test_signed_values(tmp_path):
    signed = (SIXTEEN[0].astype(np.int32) - 32768).astype(np.int16)
    np.testing.assert_allclose(read(tmp_path, signed), SIXTEEN[0] / 65535, atol=1e-7)


def test_monochrome1_is_inverted(tmp_path):
    image = read(tmp_path, EIGHT[0], PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_allclose(image, 1 - EIGHT[0] / 255, atol=1e-6)


@pytest.mark.parametrize(("slope", "expected"), [(2.0, 1), (-2.0, -1)])
def test_rescaling_keeps_the_scale_of_the_stored_bits(tmp_path, slope, expected):
    image = read(tmp_path, EIGHT[0], RescaleSlope=slope, RescaleIntercept=-100)
    scaled = EIGHT[0] / 255
    np.testing.assert_allclose(image, scaled if expected == 1 else 1 - scaled, atol=1e-6)


@pytest.mark.parametrize("function", [None, "LINEAR_EXACT"])
def test_the_window_of_the_file_is_used(tmp_path, function):
    elements = {"WindowCenter": 100, "WindowWidth": 80}
    if function:
        elements["VOILUTFunction"] = function
    image = read(tmp_path, EIGHT[0], **elements)
    x = EIGHT[0].astype(float)
    # PS3.3 C.11.2.1.2.1 and C.11.2.1.3.2, written out
    plain = (x - 99.5) / 79 + 0.5 if function is None else (x - 100) / 80 + 0.5
    np.testing.assert_allclose(image, plain.clip(0, 1), atol=1e-6)
    assert {0.0, 1.0} <= set(image.ravel().tolist())


def test_a_window_counts_in_rescaled_values_and_is_inverted_last(tmp_path):
    image = read(
        tmp_path,
        EIGHT[0],
        PhotometricInterpretation="MONOCHROME1",
        RescaleSlope=2,
        RescaleIntercept=-10,
        WindowCenter=[200, 5],
        WindowWidth=[100, 5],
        VOILUTFunction="LINEAR_EXACT",
    )
    plain = (EIGHT[0] * 2.0 - 10 - 200) / 100 + 0.5
    np.testing.assert_allclose(image, 1 - plain.clip(0, 1), atol=1e-6)


def test_a_sigmoid_window(tmp_path):
    image = read(tmp_path, EIGHT[0], WindowCenter=100, WindowWidth=80, VOILUTFunction="SIGMOID")
    expected = 1 / (1 + np.exp(-4 * (EIGHT[0] - 100.0) / 80))
    np.testing.assert_allclose(image, expected, atol=1e-6)


def test_a_window_that_makes_no_sense_is_an_error(tmp_path):
    with pytest.raises(InputError, match="Window Width"):
        read(tmp_path, EIGHT[0], WindowCenter=100, WindowWidth=-3)
    assert "Window Width" in why_unusable(tmp_path / "a.dcm")


def test_a_voi_table(tmp_path):
    table = Dataset()
    table.LUTDescriptor = [256, 0, 12]
    values = np.round(4095 * (np.arange(256) / 255) ** 2).astype(np.uint16)
    table.LUTData = values.tobytes()
    image = read(tmp_path, EIGHT[0], VOILUTSequence=[table])
    np.testing.assert_allclose(image, values[EIGHT[0]] / 4095, atol=1e-6)


def test_a_modality_table(tmp_path):
    table = Dataset()
    table.LUTDescriptor = [256, 0, 16]
    table.ModalityLUTType = "US"
    values = (65535 - 257 * np.arange(256)).astype(np.uint16)
    table.LUTData = values.tobytes()
    image = read(tmp_path, EIGHT[0], ModalityLUTSequence=[table])
    np.testing.assert_allclose(image, values[EIGHT[0]] / 65535, atol=1e-6)


def colour():
    return np.stack([EIGHT[0], EIGHT[1], EIGHT[2]], axis=-1)


def test_colour_becomes_luma(tmp_path):
    np.testing.assert_allclose(read(tmp_path, colour()), colour() @ LUMA / 255, atol=1e-6)
    ybr = read(tmp_path, colour(), PhotometricInterpretation="YBR_FULL")
    # Luma is the Y channel itself, where the colour can be shown in RGB.
    gray = np.stack([EIGHT[0], np.full_like(EIGHT[0], 128), np.full_like(EIGHT[0], 128)], -1)
    ybr = read(tmp_path, gray, PhotometricInterpretation="YBR_FULL")
    np.testing.assert_allclose(ybr, EIGHT[0] / 255, atol=1.01 / 255)


def test_a_palette(tmp_path):
    image = dicom(EIGHT[0], PhotometricInterpretation="PALETTE COLOR")
    ramps = [np.arange(256), 255 - np.arange(256), np.full(256, 40)]
    for name, ramp in zip(("Red", "Green", "Blue"), ramps, strict=True):
        setattr(image, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
        words = (ramp * 257).astype("<u2").tobytes()
        setattr(image, f"{name}PaletteColorLookupTableData", words)
    got = read_image(write_dicom(tmp_path / "a.dcm", image))
    expected = np.stack([ramp[EIGHT[0]] for ramp in ramps], -1) @ LUMA / 255
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_frames(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", dicom(SIXTEEN))
    assert count_images(path) == 3
    np.testing.assert_allclose(all_of(path), SIXTEEN / 65535, atol=1e-7)
    np.testing.assert_allclose(read_image(f"{path}#1"), SIXTEEN[1] / 65535, atol=1e-7)
    with pytest.raises(InputError, match="holds 3 B-scans"):
        read_image(path)
    with pytest.raises(InputError, match="no B-scan 3"):
        read_image(f"{path}#3")


def test_each_frame_has_its_own_window_and_slope(tmp_path):
    def group(**sequences):
        item = Dataset()
        for name, values in sequences.items():
            inner = Dataset()
            for key, value in values.items():
                setattr(inner, key, value)
            setattr(item, name, [inner])
        return item

    image = dicom(EIGHT, WindowCenter=1, WindowWidth=1)  # for readers that know no groups
    exact = {"VOILUTFunction": "LINEAR_EXACT"}
    image.SharedFunctionalGroupsSequence = [
        group(
            PixelValueTransformationSequence={"RescaleSlope": 2, "RescaleIntercept": 0},
            FrameVOILUTSequence={"WindowCenter": 255, "WindowWidth": 510, **exact},
        )
    ]
    image.PerFrameFunctionalGroupsSequence = [
        group(),
        group(FrameVOILUTSequence={"WindowCenter": 200, "WindowWidth": 100, **exact}),
        group(PixelValueTransformationSequence={"RescaleSlope": 1, "RescaleIntercept": 0}),
    ]
    got = all_of(write_dicom(tmp_path / "a.dcm", image))
    np.testing.assert_allclose(got[0], EIGHT[0] / 255, atol=1e-6)
    second = ((EIGHT[1] * 2.0 - 200) / 100 + 0.5).clip(0, 1)
    np.testing.assert_allclose(got[1], second, atol=1e-6)
    np.testing.assert_allclose(got[2], EIGHT[2] / 510, atol=1e-6)


def implicit(image):
    image.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    return image


def encoded(syntax):
    def encode(image):
        image.compress(syntax, generate_instance_uid=False)
        return image

    return encode


@pytest.mark.parametrize(
    ("pixels", "encode"),
    [
        (SIXTEEN, implicit),
        (SIXTEEN, encoded(RLELossless)),
        (EIGHT, encoded(RLELossless)),
        (SIXTEEN, encoded(JPEGLSLossless)),
        (EIGHT, encoded(JPEGLSLossless)),
        (EIGHT, lambda image: compressed_by_pillow(image, EIGHT)),
        (SIXTEEN, lambda image: compressed_by_pillow(image, SIXTEEN)),
    ],
    ids=["implicit", "RLE-16", "RLE-8", "JPEG-LS-16", "JPEG-LS-8", "JPEG2000-8", "JPEG2000-16"],
)
def test_lossless_transfer_syntaxes(tmp_path, pixels, encode):
    path = write_dicom(tmp_path / "a.dcm", encode(dicom(pixels)))
    top = np.iinfo(pixels.dtype).max
    np.testing.assert_allclose(all_of(path), pixels / top, atol=1e-7)
    np.testing.assert_allclose(read_image(f"{path}#2"), pixels[2] / top, atol=1e-7)


def test_jpeg_baseline_within_its_loss(tmp_path):
    image = compressed_by_pillow(dicom(EIGHT), EIGHT, lossless=False)
    path = write_dicom(tmp_path / "a.dcm", image)
    assert np.abs(all_of(path) - EIGHT / 255).mean() < 0.01


def test_compressed_colour(tmp_path):
    frames = np.stack([colour(), colour()[::-1]])
    image = compressed_by_pillow(dicom(frames), frames)
    path = write_dicom(tmp_path / "a.dcm", image)
    np.testing.assert_allclose(all_of(path), frames @ LUMA / 255, atol=1e-6)
    image = compressed_by_pillow(dicom(frames), frames, lossless=False)
    path = write_dicom(tmp_path / "b.dcm", image)
    assert np.abs(all_of(path) - frames @ LUMA / 255).mean() < 0.02


def test_only_the_wanted_frame_is_decoded(tmp_path):
    image = compressed_by_pillow(dicom(EIGHT), EIGHT)
    path = write_dicom(tmp_path / "a.dcm", image)
    content = bytearray(path.read_bytes())
    first = content.index(b"\xff\x4f\xff\x51")
    content[first + 2 : first + 60] = bytes(58)  # the first frame's header
    path.write_bytes(content)
    np.testing.assert_allclose(read_image(f"{path}#2"), EIGHT[2] / 255, atol=1e-7)
    with pytest.raises(InputError, match=r"a\.dcm cannot be used"):
        read_image(f"{path}#0")


@pytest.mark.parametrize(
    "name",
    ["IM000001", "1.2.840.113619.2.5", "a.DCM", "a.dicom", "a.IMA", "a.opt", "a.img", "a.png"],
)
def test_the_mark_makes_a_file_dicom(tmp_path, name):
    np.testing.assert_allclose(read(tmp_path, EIGHT[0], name), EIGHT[0] / 255, atol=1e-7)


def test_a_missing_decoder_is_named_with_the_remedy(tmp_path):
    """JPEG Lossless has no decoder without the GPL or gdcm."""
    assert not get_decoder(JPEGLosslessSV1).is_available
    image = compressed_by_pillow(dicom(EIGHT), EIGHT, lossless=False)
    image.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    path = write_dicom(tmp_path / "a.dcm", image)
    with pytest.raises(InputError, match=r"JPEG Lossless.*1\.2\.840\.10008\.1\.2\.4\.70") as caught:
        read_image(f"{path}#0")
    assert "pip install python-gdcm" in str(caught.value)


def test_a_deflated_file_is_not_unpacked(tmp_path):
    image = dicom(EIGHT[0])
    image.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    with pytest.raises(InputError, match=r"Deflated[\s\S]*write it anew, uncompressed"):
        read_image(write_dicom(tmp_path / "a.dcm", image))


def test_sizes_are_bounded_before_anything_is_decoded(tmp_path):
    huge = dicom(EIGHT, Rows=60000, Columns=60000)
    path = write_dicom(tmp_path / "a.dcm", huge)
    with pytest.raises(InputError, match=r"3 images of 60000 x 60000.*\n.*at most"):
        read_image(f"{path}#0")
    many = dicom(EIGHT, NumberOfFrames=10**9)
    with pytest.raises(InputError, match="1000000000 images"):
        count_images(write_dicom(tmp_path / "b.dcm", many))


def test_what_is_no_dicom_image(tmp_path):
    (tmp_path / "a.dcm").write_bytes(b"not DICOM" * 30)
    with pytest.raises(InputError, match=r"a\.dcm"):
        read_image(tmp_path / "a.dcm")
    report = dicom(EIGHT[0])
    for name in ("Rows", "Columns", "PixelData"):
        delattr(report, name)
    with pytest.raises(InputError, match="without an image"):
        read_image(write_dicom(tmp_path / "b.dcm", report))
    path = write_dicom(tmp_path / "c.dcm", dicom(EIGHT[0]))
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(InputError, match=r"c\.dcm cannot be used"):
        read_image(path)
    headless = dicom(EIGHT[0])
    del headless.PixelData
    with pytest.raises(InputError, match=r"d\.dcm cannot be used"):
        read_image(write_dicom(tmp_path / "d.dcm", headless))


def test_dicom_is_known_by_its_content(tmp_path):
    path = write_dicom(tmp_path / "a", dicom(EIGHT[0]))
    assert reader.is_dicom(path)
    assert not reader.is_dicom(tmp_path)
    assert not reader.is_dicom(tmp_path / "nowhere")
    for content in (
        b"",
        b"plain text, and much more of it " * 9,
        bytes(300),
        path.read_bytes()[:90],
    ):
        (tmp_path / "b").write_bytes(content)
        assert not reader.is_dicom(tmp_path / "b")


# --- as archives and devices write it, against the standard


TWELVE = bscans(2, top=4095)


@pytest.mark.parametrize(
    ("stored", "bits", "high", "expected"),
    [
        (TWELVE << 4, 12, 15, TWELVE / 4095),
        (TWELVE << 2 | 3, 12, 13, TWELVE / 4095),
        (((TWELVE.astype(int) - 2048) << 4).astype(np.int16), 12, 15, TWELVE / 4095),
        (TWELVE | 0x8000, 12, 11, TWELVE / 4095),  # an overlay in the uppermost bit
    ],
)
def test_stored_bits_may_lie_at_the_upper_end(tmp_path, stored, bits, high, expected):
    image = dicom(stored, BitsStored=bits)
    image.HighBit = high
    path = write_dicom(tmp_path / "a.dcm", image)
    for index in (0, 1):
        assert_read(f"{path}#{index}", expected[index])
    image.HighBit = 9
    write_dicom(path, image)
    assert_refused(f"{path}#0", "12 bits stored up to bit 9, of 16", "a high bit of 11 to 15")


LINEAR = ((TWELVE[0] - 1999.5) / 999 + 0.5).clip(0, 1)


@pytest.mark.parametrize(
    ("elements", "written", "expected"),
    [
        ({"WindowCenter": "2000.0", "WindowWidth": "1000.0"}, True, LINEAR),
        ({"WindowCenter": ["2000.0", "9"], "WindowWidth": ["1000.0", "9"]}, True, LINEAR),
        ({"RescaleSlope": "0.5", "RescaleIntercept": "0.0"}, True, TWELVE[0] / 4095),
        ({"WindowCenter": 0, "WindowWidth": 0}, False, TWELVE[0] / 4095),
        ({"RescaleSlope": 0, "RescaleIntercept": 0}, False, TWELVE[0] / 4095),
    ],
    ids=["comma", "commas", "comma in slope", "width 0", "slope 0"],
)
def test_decimal_commas_are_read_and_placeholders_passed_over(
    tmp_path, elements, written, expected
):
    path = write_dicom(tmp_path / "a.dcm", dicom(TWELVE[0], BitsStored=12, **elements))
    if written:
        content = path.read_bytes()
        for text in (b"2000.0", b"1000.0", b"0.5", b"0.0"):
            content = content.replace(text, text.replace(b".", b","))
        path.write_bytes(content)
    assert_read(path, expected)
    names = [name for name in ("RescaleSlope", "WindowWidth") if elements.get(name) == 0]
    kind = "DICOM slope or window of 0, a placeholder, passed over"
    assert open_images(path).notes == [(kind, name) for name in names]


def test_what_is_no_number_is_named(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", dicom(TWELVE[0], WindowCenter="200099", WindowWidth=9))
    path.write_bytes(path.read_bytes().replace(b"200099", b"2.000,"))
    assert_refused(path, "WindowCenter '2.000,'", "a number")


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("said", [2, 4])
def test_another_number_of_frames_than_said_is_refused(tmp_path, compressed, said):
    image = dicom(EIGHT)
    if compressed:
        image = compressed_by_pillow(image, EIGHT)
    image.NumberOfFrames = said
    path = write_dicom(tmp_path / "a.dcm", image)
    assert_refused(f"{path}#0", "are 3 frames", f"{said} frames, as NumberOfFrames says")


@pytest.mark.parametrize("cut", [1, 20, 700])
@pytest.mark.parametrize("compressed", [False, True])
def test_cut_pixels_are_known_before_they_are_decoded(tmp_path, cut, compressed):
    image = compressed_by_pillow(dicom(EIGHT), EIGHT) if compressed else dicom(EIGHT)
    path = write_dicom(tmp_path / "a.dcm", image)
    path.write_bytes(path.read_bytes()[:-cut])
    assert_refused(f"{path}#0", "the file is cut")


@pytest.mark.parametrize(
    ("elements", "named"),
    [
        ({"Manufacturer": "Carl Zeiss Meditec"}, "Zeiss has scrambled"),
        ({"SOPInstanceUID": "1.2.276.0.75.2.1.1"}, "Zeiss has scrambled"),
        ({}, "damaged, or scrambled"),
    ],
)
def test_scrambled_frames_are_named_before_they_are_decoded(tmp_path, elements, named):
    image = compressed_by_pillow(dicom(EIGHT, **elements), EIGHT)
    path = write_dicom(tmp_path / "a.dcm", image)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"\xff\x4f\xff\x51", b"\x12\x34\xff\x51"))
    assert_refused(f"{path}#0", named, "JPEG 2000", "export")


@pytest.mark.parametrize(
    "name",
    [
        "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored",
        "PixelRepresentation",
    ],
)  # fmt: skip
def test_what_a_header_lacks_is_named(tmp_path, name):
    image = dicom(EIGHT[0])
    image["PixelData"].VR = "OB"
    delattr(image, name)
    words = {"BitsStored": "Bits Stored", "PixelRepresentation": "Pixel Representation"}
    assert_refused(write_dicom(tmp_path / "a.dcm", image), words.get(name, f"without {name}"))


@pytest.mark.parametrize("name", ["a.dcm", "a.png", "a.jpg", "a.img", "IM000001", "a.opt"])
def test_files_without_a_preamble_are_known_by_their_elements(tmp_path, name):
    """As archives sent them before the standard had one."""
    path = write_dicom(tmp_path / name, implicit(dicom(EIGHT[0])))
    content = path.read_bytes()
    path.write_bytes(content[content.index(b"\x08\x00\x16\x00") :])
    assert_read(path, EIGHT[0] / 255)


def test_no_message_holds_an_address_of_python(tmp_path):
    damaged = dicom(bscans(1)[0])
    damaged.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.50"
    damaged.PixelData = encapsulate([b"\xff\xd8\xff\xe0" + bytes(90)])
    with pytest.raises(InputError, match="cannot identify image file its data"):
        read_image(write_dicom(tmp_path / "a.dcm", damaged))
