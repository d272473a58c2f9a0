"""How a window's tokens are cut, and how far it is sought."""

from __future__ import annotations

from pipeline.whisper.seek import Cut, Piece, cut
from pipeline.whisper.tokens import Layout

LAYOUT = Layout(51_865)
T = LAYOUT.first_timestamp  # 0.00 s


def test_pairs_cut_and_the_unfinished_tail_is_decoded_again() -> None:
    pieces = [Piece(0, 100, (T, 1, 2, T + 100)), Piece(100, 150, (T + 100, 3, T + 150))]
    tokens = [T, 1, 2, T + 100, T + 100, 3, T + 150, T + 150, 4]
    assert cut(tokens, 3000, LAYOUT) == Cut(pieces, 300, whole=False)


def test_single_timestamp_at_the_end_closes_the_window() -> None:
    pieces = [Piece(0, 100, (T, 1, T + 100)), Piece(120, 900, (T + 120, 2, T + 900))]
    assert cut([T, 1, T + 100, T + 120, 2, T + 900], 3000, LAYOUT) == Cut(pieces, 3000, whole=True)


def test_without_a_pair_all_is_one_piece_up_to_the_last_timestamp() -> None:
    assert cut([T, 1, 2, T + 75], 1000, LAYOUT) == Cut([Piece(0, 75, (T, 1, 2, T + 75))], 1000, whole=True)


def test_without_timestamps_asked_for_all_is_one_piece_whatever_comes() -> None:
    for tokens in ([T, T, 1, 2], [1, T + 500, T + 400, 2, T + 90, T + 50, 3]):
        assert cut(tokens, 1000, LAYOUT, timestamps=False) == Cut([Piece(0, 500, tuple(tokens))], 1000, whole=False)


def test_without_an_end_the_piece_ends_with_the_window() -> None:
    assert cut([T, 1, 2], 1000, LAYOUT) == Cut([Piece(0, 500, (T, 1, 2))], 1000, whole=False)
