"""Compiled walks through tree ensembles, for many rows at once; imported where they are needed,
because numba is.

They let go of the interpreter and start no threads of their own: a pool of OpenMP's, which numba's
parallel loops leave behind, makes torch hang in processes that are forked later.

A split that sends the start b of a row and its end x to different children is crossed once on the
straight way between them, at t = (c − b)/(x − b). While the way is at the split, it is with the
child on b's side (near) before t and with the other (far) after it. Near children first, leaves
come in the order in which the way is at them, and each jump from one to the next goes to the
feature whose crossing lies between.

Crossings at one time are a game between their features, and each gets its Shapley value. A leaf is
what the tree says between the last crossing that enters it and the first that leaves it. For one
that p features enter together that is v/p each; where p features enter at the very time at which q
others leave,

    v (p−1)! q!/(p+q)!  for each that enters         −v p! (q−1)!/(p+q)!  for each that leaves
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

TOGETHER = 16 * np.finfo(np.float64).eps
"""Crossings that are no further apart, on the way from 0 to 1, are at one time."""

_MOST_SPLITS = 63  # of a tree whose splits, and leaves, are bits of one word
_FEWEST = 4  # rows that a tree is turned to their start for
_CACHED = 1 << 20  # bytes of rows that are walked through a tree before the next is read
_LANES = 16  # rows that go down a tree side by side, so that none waits for memory alone
_BEFORE, _BEHIND = -1.0, 2.0  # times before every crossing, and after all
_NONE, _ALL = np.uint64(0), np.uint64(2**64 - 1)
_DE_BRUIJN = np.uint64(0x03F79D71B4CB0A89)  # its 64 runs of six bits differ
_PLACE_OF_RUN = np.array(
    [
        next(bit for bit in range(64) if ((0x03F79D71B4CB0A89 << bit) & (2**64 - 1)) >> 58 == run)
        for run in range(64)
    ]
)


def _compiled(**options):
    """A decorator that compiles, and keeps what is compiled where there is a folder for it."""

    def compiled(function):
        try:
            return njit(cache=True, error_model="numpy", **options)(function)
        except RuntimeError:  # neither the package's folder nor the user's can be written to
            return njit(error_model="numpy", **options)(function)

    return compiled


_walk = _compiled(nogil=True)
"""Compiles what Python calls."""

_step = _compiled(no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""Compiles what walks are made of, without what Python would need to call it: that takes longer to
compile than the steps themselves."""


@_step
def _lowest(bits):
    """The place of the lowest bit of a word that is not zero."""
    return _PLACE_OF_RUN[((bits & (~bits + np.uint64(1))) * _DE_BRUIJN) >> np.uint64(58)]


# --- one split --------------------------------------------------------------------------------------------------------


@_step
def goes_left(z, node, words):
    """Whether a split sends the number z of its feature to the left."""
    if z > node.test:
        return False
    return z <= node.test or _is_sent_left(z, node, words)


@_step
def _is_sent_left(z, node, words):
    """Whether a split sends z to the left, which is missing or a category."""
    if z != z:
        return node.missing_left
    if node.first_word < 0:
        return z <= node.test
    code = int(z) if z >= 0 else -1
    among = 0 <= code < 64 * (node.last_word - node.first_word) and (
        words[node.first_word + (code >> 6)] >> np.uint64(code & 63)
    ) & np.uint64(1)
    return among == node.listed_left


@_step
def crossing_time(b, x, threshold, switches):
    """When a split between b and x is crossed; features that cannot move gradually switch
    halfway."""
    if switches:
        return 0.5
    step = x - b
    t = (threshold - b) / step if math.isfinite(step) else (threshold / 2 - b / 2) / (x / 2 - b / 2)
    return min(max(t, 0.0), 1.0)


# --- what trees say ---------------------------------------------------------------------------------------------------


@_walk
def add_outputs(z, nodes, words, values, roots, first_output, outputs):
    """Add what every small tree says of rows z (N, F) to ``outputs`` (N, C)."""
    rows, features = z.shape
    most = min(rows, max(64, _CACHED // (8 * features + 8)))
    columns, plain = np.empty((features, most)), np.empty(features, np.bool_)
    left_out, leaf = np.empty(_MOST_SPLITS + 1, np.uint64), np.empty(_MOST_SPLITS + 1, np.int64)
    splits, stack = np.empty(_MOST_SPLITS, np.int64), np.empty((_MOST_SPLITS + 1, 2), np.int64)
    reached = np.empty(most, np.uint64)
    for first in range(0, rows, most):
        count = min(most, rows - first)
        for j in range(features):
            plain[j] = True
            for row in range(count):
                columns[j, row] = z[first + row, j]
                plain[j] &= columns[j, row] == columns[j, row]
        for tree in range(len(first_output)):
            root, size, output = roots[tree], roots[tree + 1] - roots[tree], first_output[tree]
            if size > 2 * _MOST_SPLITS + 1:
                continue
            _leave_out(nodes, root, splits, left_out, leaf, stack)
            _reach(nodes, words, splits, size // 2, left_out, columns, plain, reached, count)
            for row in range(count):
                for k in range(values.shape[1]):
                    place = leaf[_lowest(reached[row])]
                    outputs[first + row, output + k] += values[place, k]


@_walk
def add_outputs_of_large(z, nodes, words, values, roots, first_output, outputs):
    """Add what every large tree says of rows z (N, F) to ``outputs`` (N, C); some rows go down side
    by side."""
    place = np.empty(_LANES, np.int64)
    for tree in range(len(first_output)):
        if roots[tree + 1] - roots[tree] <= 2 * _MOST_SPLITS + 1:
            continue
        for first in range(0, len(z), _LANES):
            lanes = min(_LANES, len(z) - first)
            for lane in range(lanes):
                place[lane] = roots[tree]
            moved = True
            while moved:
                moved = False
                for lane in range(lanes):
                    # A leaf is its own child: a row that is there stays.
                    node = nodes[place[lane]]
                    number = z[first + lane, max(node.feature, 0)]
                    right = number > node.test
                    if not right and not number <= node.test:
                        right = not _is_sent_left(number, node, words)
                    child = node.left + right * (node.right - node.left)
                    moved |= child != place[lane]
                    place[lane] = child
            for lane in range(lanes):
                for k in range(values.shape[1]):
                    outputs[first + lane, first_output[tree] + k] += values[place[lane], k]


@_step
def _leave_out(nodes, root, splits, left_out, leaf, stack):
    """Number the splits and leaves of a small tree from the left, and note for each split the
    leaves that are left to those who go right, as bits."""
    at, split, leaves, waiting = root, 0, 0, 0
    while True:
        while nodes[at].feature >= 0:
            splits[split] = at
            stack[waiting, 0], stack[waiting, 1] = split, leaves
            waiting += 1
            split += 1
            at = nodes[at].left
        leaf[leaves] = at
        leaves += 1
        if waiting == 0:
            return
        waiting -= 1
        over, before = stack[waiting, 0], stack[waiting, 1]
        below = (np.uint64(1) << np.uint64(leaves)) - np.uint64(1)
        left_out[over] = ~(below & ~((np.uint64(1) << np.uint64(before)) - np.uint64(1)))
        at = nodes[splits[over]].right


@_step
def _reach(nodes, words, splits, size, left_out, columns, plain, reached, count):
    """The leaves that no split keeps a row from, for ``count`` rows, as bits: the lowest is where
    it ends up."""
    for row in range(count):
        reached[row] = _ALL
    for number in range(size):
        node, left = nodes[splits[number]], left_out[number]
        test, column = node.test, columns[node.feature]
        if plain[node.feature] and test == test:
            for row in range(count):
                reached[row] &= left if column[row] > test else _ALL
        else:
            for row in range(count):
                if not goes_left(column[row], node, words):
                    reached[row] &= left


@_walk
def add_limits(
    b, x, switches, row_of, low, high, far, nodes, words, values, roots, first_output, outputs
):
    """Add what every tree says (M, C) on the way of the rows ``row_of`` (M,) from b to x (N, F).

    Crossings before ``low`` (M,) are behind, those after ``high`` are ahead, and those between are
    behind for the features in ``far`` (M, F) alone.
    """
    for number in range(len(row_of)):
        row = row_of[number]
        for tree in range(len(first_output)):
            at = roots[tree]
            while nodes[at].feature >= 0:
                node = nodes[at]
                j = node.feature
                left = goes_left(b[row, j], node, words)
                end_left = goes_left(x[row, j], node, words)
                if left != end_left:
                    t = crossing_time(b[row, j], x[row, j], node.threshold, switches[row, j])
                    if t < low[number] or (t <= high[number] and far[number, j]):
                        left = end_left
                at = node.left if left else node.right
            for k in range(values.shape[1]):
                outputs[number, first_output[tree] + k] += values[at, k]


# --- shares -----------------------------------------------------------------------------------------------------------
#
# Rows that start at one place are walked together. A small tree is turned to that start first: its
# splits are numbered from the root on, near children before far ones, so that the splits that a way
# passes as long as it crosses none are neighbours (a chain). Each row notes the splits that lie
# between its ends as bits of one word; the next one that it meets is the lowest bit in its chain.


@_step
def _turn(nodes, words, values, root, size, first, b, weights, splits, places, stack):
    """Turn a small tree to the start b (F,); its leaves say Σ_c weights_c · output_c.

    ``places`` has the splits first, then the leaves: which chain begins there, and what the leaf
    says that it ends in.
    """
    number, leaf, waiting, at = 0, size // 2, 0, root
    while True:
        begin = number
        while nodes[at].feature >= 0:
            node, split = nodes[at], splits[number]
            rises = goes_left(b[node.feature], node, words)
            split.node, split.feature, split.rises = at, node.feature, rises
            split.test, split.distance = node.test, node.threshold - b[node.feature]
            split.near = number + 1
            stack[waiting, 0] = node.right if rises else node.left
            stack[waiting, 1] = number
            waiting += 1
            number += 1
            at = node.left if rises else node.right
        if number > begin:
            splits[number - 1].near = leaf
        value, chain = _weighted(values, at, weights, first), _NONE
        places[leaf].chain, places[leaf].value = chain, value
        for along in range(number - 1, begin - 1, -1):
            chain |= np.uint64(1) << np.uint64(along)
            places[along].chain, places[along].value = chain, value
        leaf += 1
        if waiting == 0:
            return
        waiting -= 1
        at, over = stack[waiting, 0], stack[waiting, 1]
        splits[over].far = number if nodes[at].feature >= 0 else leaf


@_step
def _weighted(values, leaf, weights, first):
    """What a leaf counts in Σ_c weights_c · output_c."""
    value = 0.0
    for k in range(values.shape[1]):
        value += weights[first + k] * values[leaf, k]
    return value


@_step
def _ask(b, x, switches, columns, plain, slowness):
    """Arrange ends x (N, F) of ways from b (F,) as columns (F, N), and note which of these
    are of features that move gradually in all rows (F,), and what a distance from b is multiplied
    by to be a time (N, F), NaN where that would not do."""
    for j in range(len(b)):
        plain[j] = True
        for row in range(len(x)):
            columns[j, row] = x[row, j]
            plain[j] &= not switches[row, j]
            step = abs(x[row, j] - b[j])
            careful = switches[row, j] or not 1e-290 < step < 1e290
            slowness[row, j] = np.nan if careful else 1 / (x[row, j] - b[j])


@_step
def _mark(nodes, words, splits, size, columns, plain, between):
    """The splits of a turned tree that lie between the start of rows and their ends (N,), as
    bits."""
    for row in range(len(between)):
        between[row] = _NONE
    for number in range(size):
        split, bit = splits[number], np.uint64(1) << np.uint64(number)
        test, column, rises = split.test, columns[split.feature], split.rises
        if plain[split.feature] and rises:
            for row in range(len(between)):
                between[row] |= bit if column[row] > test else _NONE
        elif plain[split.feature]:
            for row in range(len(between)):
                between[row] |= bit if column[row] <= test else _NONE
        else:
            for row in range(len(between)):
                if goes_left(column[row], nodes[split.node], words) != rises:
                    between[row] |= bit


@_step
def _walk_turned(
    splits, places, between, slowness, tied, shares, waiting_at, players, ahead, log, before
):
    """Walk rows through a turned tree, and add every jump to the shares (N, F) of the feature that
    crosses. Rows with crossings at one time, or of features that switch, are noted in ``tied``
    (N,), and get nothing."""
    for row in range(len(between)):
        at, begin, end, enters = np.uint32(0), _BEFORE, _BEHIND, -1
        level, waiting, credited, crosses = 0.0, 0, 0, between[row]
        while True:
            met = crosses & places[at].chain
            if met == _NONE:
                value = places[at].value
                if enters >= 0:
                    share = shares[row, enters]
                    log[credited], before[credited] = enters, share
                    credited += 1
                    shares[row, enters] = share + (value - level)
                level = value
                if waiting == 0:
                    break
                waiting -= 1
                begin, end = end, ahead[waiting]
                at, enters = waiting_at[waiting], players[waiting]
            else:
                split = splits[_lowest(met)]
                j = split.feature
                t = split.distance * slowness[row, j]
                if t > begin + TOGETHER and t < end - TOGETHER:
                    waiting_at[waiting], players[waiting], ahead[waiting] = split.far, j, end
                    waiting += 1
                    end, at = t, split.near
                elif t > end + TOGETHER:
                    at = split.near
                elif t < begin - TOGETHER:
                    at = split.far
                else:
                    for number in range(credited - 1, -1, -1):
                        shares[row, log[number]] = before[number]
                    tied[row] = True
                    break


@_walk
def add_turned(
    b,
    x,
    switches,
    weights,
    groups,
    nodes,
    words,
    values,
    roots,
    first_output,
    splits,
    places,
    tied,
    shares,
):
    """Add shares (N, F) of Σ_c weights_c · output_c on the ways of N rows from b to x, as far as
    small trees, and rows that have their start in common, go.

    Args:
        b, x: (N, F) prepared starts and ends.
        switches: (N, F) which features switch halfway.
        weights: (N, C) what each output counts.
        groups: (G + 1,) where groups of rows begin that have their start and weights in common.
        splits, places: room for a tree that is turned to a start.
        tied: (T, N) filled with what is left: the rows that each tree has added nothing to.
        shares: (N, F) zeros.
    """
    rows, features = x.shape
    most = min(rows, max(64, _CACHED // (32 * features + 16)))
    columns, plain = np.empty((features, most)), np.empty(features, np.bool_)
    slowness, between = np.empty((most, features)), np.empty(most, np.uint64)
    stack = np.empty((_MOST_SPLITS + 1, 2), np.int64)
    waiting_at, players = np.empty(_MOST_SPLITS, np.uint32), np.empty(_MOST_SPLITS, np.int32)
    ahead, before = np.empty(_MOST_SPLITS), np.empty(_MOST_SPLITS + 1)
    log = np.empty(_MOST_SPLITS + 1, np.int32)
    for group in range(len(groups) - 1):
        if groups[group + 1] - groups[group] < _FEWEST:
            tied[:, groups[group] : groups[group + 1]] = True
            continue
        start, counted = b[groups[group]], weights[groups[group]]
        for first in range(groups[group], groups[group + 1], most):
            last = min(first + most, groups[group + 1])
            ends, halfway, crossed = x[first:last], switches[first:last], between[: last - first]
            _ask(start, ends, halfway, columns, plain, slowness)
            for tree in range(len(first_output)):
                root, size, output = roots[tree], roots[tree + 1] - roots[tree], first_output[tree]
                counts = False
                for k in range(output, output + values.shape[1]):
                    counts |= counted[k] != 0
                if not counts:
                    continue
                if size > 2 * _MOST_SPLITS + 1:
                    tied[tree, first:last] = True
                    continue
                _turn(
                    nodes, words, values, root, size, output, start, counted, splits, places, stack
                )
                _mark(nodes, words, splits, size // 2, columns, plain, crossed)
                _walk_turned(
                    splits,
                    places,
                    crossed,
                    slowness,
                    tied[tree, first:last],
                    shares[first:last],
                    waiting_at,
                    players,
                    ahead,
                    log,
                    before,
                )


@_walk
def add_together(
    b, x, switches, weights, nodes, words, values, roots, first_output, depth, tied, shares
):
    """Add shares as ``add_turned`` does, of the rows that are ``tied`` (T, N), leaf by leaf:
    crossings may be at one time, trees large, and every row have a start of its own.

    ``crossed`` keeps the features of the splits on the way to a node that are crossed, and whether
    the node lies behind the crossing; ``times`` when that is.
    """
    stack, ahead = np.empty((depth + 2, 5), np.int64), np.empty((depth + 2, 2))
    crossed, times = np.empty((depth + 1, 2), np.int64), np.empty(depth + 1)
    for tree in range(len(first_output)):
        output = first_output[tree]
        for row in range(len(x)):
            if not tied[tree, row]:
                continue
            stack[0, 0], stack[0, 1] = roots[tree], 0
            stack[0, 2], stack[0, 3], stack[0, 4] = -1, -1, 0
            ahead[0, 0], ahead[0, 1] = _BEFORE, _BEHIND
            waiting = 1
            while waiting > 0:
                waiting -= 1
                at, count = stack[waiting, 0], stack[waiting, 1]
                enters, leaves, shared = stack[waiting, 2], stack[waiting, 3], stack[waiting, 4]
                begin, end = ahead[waiting, 0], ahead[waiting, 1]
                if count > 0:
                    crossed[count - 1, 1] = 1
                reached = True
                while reached and nodes[at].feature >= 0:
                    node = nodes[at]
                    j = node.feature
                    start, last = b[row, j], x[row, j]
                    left, end_left = start <= node.test, last <= node.test
                    # Neither side: missing, or a category.
                    if not left and not start > node.test:
                        left = _is_sent_left(start, node, words)
                    if not end_left and not last > node.test:
                        end_left = _is_sent_left(last, node, words)
                    at = node.left if left else node.right
                    if left == end_left:
                        continue
                    t = crossing_time(start, last, node.threshold, switches[row, j])
                    crossed[count, 0], crossed[count, 1], times[count] = j, 0, t
                    count += 1
                    if abs(t - begin) <= TOGETHER or abs(t - end) <= TOGETHER:
                        shared = 1
                    if t <= end + TOGETHER:
                        stack[waiting, 0] = node.right if left else node.left
                        stack[waiting, 1], stack[waiting, 4] = count, shared
                        stack[waiting, 2], stack[waiting, 3] = j if t > begin else enters, leaves
                        ahead[waiting, 0], ahead[waiting, 1] = max(begin, t), end
                        waiting += 1
                    reached = t >= begin - TOGETHER
                    if t < end:
                        leaves, end = j, t
                if not reached:
                    continue
                value = 0.0
                for k in range(values.shape[1]):
                    value += weights[row, output + k] * values[at, k]
                if shared == 1:
                    _credit_leaf(value, begin, end, count, crossed, times, row, shares)
                    continue
                if enters >= 0:
                    shares[row, enters] += value
                if leaves >= 0:
                    shares[row, leaves] -= value


@_step
def _credit_leaf(value, begin, end, count, crossed, times, row, shares):
    """Add the Shapley values of a leaf that is entered at ``begin`` and left at ``end`` to the
    shares of a row."""
    entering, leaving = 0, 0
    together = end - begin <= TOGETHER
    for k in range(count):
        counted, matched = _limits_leaf(k, count, begin, end, crossed, times)
        if matched and together:
            return  # a feature would have to enter and to leave at once
        if counted and crossed[k, 1]:
            entering += 1
        elif counted:
            leaving += 1
    gain, loss = value / max(entering, 1), value / max(leaving, 1)
    if together:
        ways = 1.0  # (p+q)! / (p! q!)
        for number in range(1, entering + 1):
            ways *= (leaving + number) / number
        gain, loss = gain / ways, loss / ways
    for k in range(count):
        if _limits_leaf(k, count, begin, end, crossed, times)[0]:
            shares[row, crossed[k, 0]] += gain if crossed[k, 1] else -loss


@_step
def _limits_leaf(k, count, begin, end, crossed, times):
    """Whether a crossing is among those that enter a leaf last, or leave it first, and the first
    such of its feature; and whether its feature does both."""
    if times[k] < begin - TOGETHER if crossed[k, 1] else times[k] > end + TOGETHER:
        return False, False
    first, matched = True, False
    for other in range(count):
        behind = crossed[other, 1]
        limits = times[other] >= begin - TOGETHER if behind else times[other] <= end + TOGETHER
        if limits and crossed[other, 0] == crossed[k, 0]:
            matched |= behind != crossed[k, 1]
            first &= behind != crossed[k, 1] or other >= k
    return first, matched


# --- steps ------------------------------------------------------------------------------------------------------------


@_step
def _emit(place, number, time, feature, leaf, events, moments):
    if len(events):
        events[place + number, 0], events[place + number, 1] = feature, leaf
        moments[place + number] = time
    return number + 1


@_step
def _list_tree(root, b, x, switches, nodes, words, stack, times, place, events, moments):
    """List a tree's steps from ``place`` on; returns how many there are."""
    top, number = 1, 0
    stack[0, 0], stack[0, 1], stack[0, 2] = root, -1, -1
    times[0, 0], times[0, 1] = _BEFORE, _BEHIND
    while top > 0:
        top -= 1
        at, enter, leave = stack[top, 0], stack[top, 1], stack[top, 2]
        begin, end = times[top, 0], times[top, 1]
        while at >= 0 and nodes[at].feature >= 0:
            node = nodes[at]
            j = node.feature
            left, end_left = goes_left(b[j], node, words), goes_left(x[j], node, words)
            near, far = (node.left, node.right) if left else (node.right, node.left)
            at = near
            if left == end_left:
                continue
            t = crossing_time(b[j], x[j], node.threshold, switches[j])
            if abs(t - begin) <= TOGETHER or abs(t - end) <= TOGETHER:  # who is there besides
                number = _emit(place, number, t, j, -1, events, moments)
                partner = enter if abs(t - begin) <= TOGETHER else leave
                number = _emit(place, number, t, partner, -1, events, moments)
                if abs(t - begin) <= TOGETHER and abs(t - end) <= TOGETHER:
                    number = _emit(place, number, t, leave, -1, events, moments)
            if t <= end + TOGETHER:
                stack[top, 0], stack[top, 1], stack[top, 2] = far, j if t > begin else enter, leave
                times[top, 0], times[top, 1] = max(begin, t), end
                top += 1
            if t < begin - TOGETHER:
                at = -1
            elif t < end:
                leave, end = j, t
        if at >= 0 and end - begin > TOGETHER:
            if enter >= 0:
                number = _emit(place, number, begin, enter, at, events, moments)
            if leave >= 0:
                number = _emit(place, number, end, leave, -2 - at, events, moments)
    return number


@_walk
def list_steps(b, x, switches, nodes, words, roots, depth, places, counts, events, moments):
    """Every step of every tree on the ways of N rows from b to x.

    Without room for ``events`` only ``counts`` (N,) is filled. With it, those of row n begin at
    ``places[n]``: the feature, and the leaf that is entered; −2 − leaf for one that is left, −1 for
    a crossing at the time of another.
    """
    stack, times = np.empty((depth + 2, 3), np.int64), np.empty((depth + 2, 2), np.float64)
    for row in range(len(b)):
        number = 0
        for tree in range(len(roots) - 1):
            number += _list_tree(
                roots[tree],
                b[row],
                x[row],
                switches[row],
                nodes,
                words,
                stack,
                times,
                places[row] + number,
                events,
                moments,
            )
        counts[row] = number
