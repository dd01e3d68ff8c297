"""Compiled walks through tree ensembles, for many rows at once; imported where they are needed,
because numba is.

They let go of the interpreter and start no threads of their own: a pool of OpenMP's, which numba's
parallel loops leave behind, makes torch hang in processes that are forked later.

A split that sends the start b of a row and its end x to different children is crossed once on the
straight way between them, at t = (c − b)/(x − b). A leaf is what the tree says between the last
crossing that enters it (A) and the first that leaves it (E). Where A < E it gives its value to the
feature that enters and takes it from the feature that leaves.

Crossings at one time are a game between their features, and each gets its Shapley value. For a leaf
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

_CHUNK = 32  # rows that are walked through a tree before the next is read


@njit(cache=True)
def goes_left(z, node, nodes):
    """Whether a split sends the number z of its feature to the left."""
    if z != z:
        return nodes.missing_left[node]
    start = nodes.categories[node]
    if start < 0:
        return z < nodes.threshold[node] or (nodes.inclusive and z == nodes.threshold[node])
    code = int(z) if z >= 0 else -1
    end = nodes.categories_end[node]
    among = 0 <= code < 64 * (end - start) and (
        nodes.words[start + (code >> 6)] >> np.uint64(code & 63)
    ) & np.uint64(1)
    return among == nodes.listed_left[node]


@njit(cache=True)
def crossing_time(b, x, threshold, switches):
    """When a split between b and x is crossed; features that cannot move gradually switch
    halfway."""
    if switches:
        return 0.5
    step = x - b
    t = (threshold - b) / step if math.isfinite(step) else (threshold / 2 - b / 2) / (x / 2 - b / 2)
    return min(max(t, 0.0), 1.0)


@njit(cache=True)
def leaf_of(root, z, nodes):
    """The leaf a row z (F,) ends up in."""
    node = root
    while nodes.feature[node] >= 0:
        left = goes_left(z[nodes.feature[node]], node, nodes)
        node = nodes.left[node] if left else nodes.right[node]
    return node


@njit(cache=True, nogil=True)
def add_outputs(z, nodes, outputs):
    """Add what every tree says of rows z (N, F) to ``outputs`` (N, C)."""
    count = len(z)
    for chunk in range((count + _CHUNK - 1) // _CHUNK):
        for tree in range(len(nodes.roots)):
            first = nodes.first_output[tree]
            for row in range(chunk * _CHUNK, min(count, (chunk + 1) * _CHUNK)):
                leaf = leaf_of(nodes.roots[tree], z[row], nodes)
                for k in range(nodes.values.shape[1]):
                    outputs[row, first + k] += nodes.values[leaf, k]


@njit(cache=True, nogil=True)
def add_limits(b, x, switches, row_of, low, high, far, nodes, outputs):
    """Add what every tree says (M, C) on the way of the rows ``row_of`` (M,) from b to x (N, F).

    Crossings before ``low`` (M,) are behind, those after ``high`` are ahead, and those between are
    behind for the features in ``far`` (M, F) alone.
    """
    for number in range(len(row_of)):
        row = row_of[number]
        for tree in range(len(nodes.roots)):
            node = nodes.roots[tree]
            while nodes.feature[node] >= 0:
                j = nodes.feature[node]
                left, end_left = (
                    goes_left(b[row, j], node, nodes),
                    goes_left(x[row, j], node, nodes),
                )
                if left != end_left:
                    t = crossing_time(b[row, j], x[row, j], nodes.threshold[node], switches[row, j])
                    if t < low[number] or (t <= high[number] and far[number, j]):
                        left = end_left
                node = nodes.left[node] if left else nodes.right[node]
            for k in range(nodes.values.shape[1]):
                outputs[number, nodes.first_output[tree] + k] += nodes.values[node, k]


@njit(cache=True)
def constraints_of(leaf, b, x, switches, nodes, enters, leaves):
    """When the path is at a leaf, and the features that see to it.

    Fills ``enters`` and ``leaves`` with the features that enter last and leave first. Returns A, E,
    and how many these are, the latter −1 where one feature would have to do both at once.
    """
    begin, end = -1.0, 2.0
    for turn in range(2):
        entering, leaving = 0, 0
        child = leaf
        while nodes.parent[child] >= 0:
            node = nodes.parent[child]
            j = nodes.feature[node]
            left, end_left = goes_left(b[j], node, nodes), goes_left(x[j], node, nodes)
            if left != end_left:
                t = crossing_time(b[j], x[j], nodes.threshold[node], switches[j])
                near = (nodes.left[node] == child) == left
                if turn == 0:
                    if near:
                        end = min(end, t)
                    else:
                        begin = max(begin, t)
                elif near and t <= end + TOGETHER:
                    leaving = _insert(leaves, leaving, j)
                elif not near and t >= begin - TOGETHER:
                    entering = _insert(enters, entering, j)
            child = node
    for number in range(entering):
        for other in range(leaving):
            if enters[number] == leaves[other] and end - begin <= TOGETHER:
                return begin, end, -1, -1
    return begin, end, entering, leaving


@njit(cache=True)
def _insert(features, count, j):
    for number in range(count):
        if features[number] == j:
            return count
    features[count] = j
    return count + 1


@njit(cache=True)
def share_tied(leaf, value, b, x, switches, nodes, enters, leaves, shares):
    """Add the Shapley values of a leaf whose crossings may be at one time to ``shares`` (F,)."""
    begin, end, p, q = constraints_of(leaf, b, x, switches, nodes, enters, leaves)
    if p < 0 or begin > end + TOGETHER:
        return
    gain, loss = value / max(p, 1), value / max(q, 1)
    if end - begin <= TOGETHER:
        ways = 1.0  # (p+q)! / (p! q!)
        for number in range(1, p + 1):
            ways *= (q + number) / number
        gain, loss = gain / ways, loss / ways
    for number in range(p):
        shares[enters[number]] += gain
    for number in range(q):
        shares[leaves[number]] -= loss


@njit(cache=True)
def weighted_value(leaf, first, weights, nodes):
    """What a leaf counts in Σ_c weights_c · output_c."""
    value = 0.0
    for k in range(nodes.values.shape[1]):
        value += weights[first + k] * nodes.values[leaf, k]
    return value


@njit(cache=True)
def children_of(node, b, x, switches, nodes):
    """The child that b goes to, the other one where x does, else −1, and when it is reached."""
    j = nodes.feature[node]
    left, end_left = goes_left(b[j], node, nodes), goes_left(x[j], node, nodes)
    near = nodes.left[node] if left else nodes.right[node]
    if left == end_left:
        return near, -1, 0.0
    far = nodes.right[node] if left else nodes.left[node]
    return near, far, crossing_time(b[j], x[j], nodes.threshold[node], switches[j])


@njit(cache=True, nogil=True)
def add_shares(b, x, switches, weights, nodes, shares):
    """Add the shares (N, F) of Σ_c weights_c · output_c on the ways of N rows from b to x.

    ``shares`` holds zeros, ``weights`` (N, C) what each output counts.
    """
    count = len(b)
    for chunk in range((count + _CHUNK - 1) // _CHUNK):
        stack = np.empty((nodes.depth + 2, 5), np.int64)
        times = np.empty((nodes.depth + 2, 2), np.float64)
        enters = np.empty(nodes.depth + 1, np.int64)
        leaves = np.empty(nodes.depth + 1, np.int64)
        for tree in range(len(nodes.roots)):
            first = nodes.first_output[tree]
            for row in range(chunk * _CHUNK, min(count, (chunk + 1) * _CHUNK)):
                if not weights[row, first : first + nodes.values.shape[1]].any():
                    continue
                _walk(
                    nodes.roots[tree],
                    first,
                    b[row],
                    x[row],
                    switches[row],
                    weights[row],
                    nodes,
                    stack,
                    times,
                    enters,
                    leaves,
                    shares[row],
                )


@njit(cache=True)
def _walk(root, first, b, x, switches, weights, nodes, stack, times, enters, leaves, shares):
    """One row through one tree, over the leaves that are reached on the way."""
    top = 1
    stack[0, 0], stack[0, 1], stack[0, 2], stack[0, 3] = root, -1, -1, 0
    times[0, 0], times[0, 1] = -1.0, 2.0
    while top > 0:
        top -= 1
        node, enter, leave, tied = stack[top, 0], stack[top, 1], stack[top, 2], stack[top, 3]
        begin, end = times[top, 0], times[top, 1]
        while nodes.feature[node] >= 0:
            near, far, t = children_of(node, b, x, switches, nodes)
            if far < 0:
                node = near
                continue
            j = nodes.feature[node]
            beside = abs(t - begin) <= TOGETHER or abs(t - end) <= TOGETHER
            if t <= end + TOGETHER and not (beside and leave == j and t >= end - TOGETHER):
                later = t > begin
                stack[top, 0] = far
                stack[top, 1] = j if later else enter
                stack[top, 2] = leave
                stack[top, 3] = tied or beside
                times[top, 0], times[top, 1] = max(begin, t), end
                top += 1
            if t < begin - TOGETHER or (beside and enter == j and t <= begin + TOGETHER):
                node = -1
                break
            if t < end:
                leave, end = j, t
            tied = tied or beside
            node = near
        if node < 0:
            continue
        value = weighted_value(node, first, weights, nodes)
        if tied:
            share_tied(node, value, b, x, switches, nodes, enters, leaves, shares)
        else:
            if enter >= 0:
                shares[enter] += value
            if leave >= 0:
                shares[leave] -= value


@njit(cache=True)
def _emit(place, number, time, feature, leaf, events, moments):
    if len(events):
        events[place + number, 0], events[place + number, 1] = feature, leaf
        moments[place + number] = time
    return number + 1


@njit(cache=True)
def _list_tree(root, b, x, switches, nodes, stack, times, place, events, moments):
    """List a tree's steps from ``place`` on; returns how many there are."""
    top, number = 1, 0
    stack[0, 0], stack[0, 1], stack[0, 2] = root, -1, -1
    times[0, 0], times[0, 1] = -1.0, 2.0
    while top > 0:
        top -= 1
        node, enter, leave = stack[top, 0], stack[top, 1], stack[top, 2]
        begin, end = times[top, 0], times[top, 1]
        while nodes.feature[node] >= 0:
            near, far, t = children_of(node, b, x, switches, nodes)
            if far < 0:
                node = near
                continue
            j = nodes.feature[node]
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
                node = -1
                break
            if t < end:
                leave, end = j, t
            node = near
        if node >= 0 and end - begin > TOGETHER:
            if enter >= 0:
                number = _emit(place, number, begin, enter, node, events, moments)
            if leave >= 0:
                number = _emit(place, number, end, leave, -2 - node, events, moments)
    return number


@njit(cache=True, nogil=True)
def list_steps(b, x, switches, nodes, places, counts, events, moments):
    """Every step of every tree on the ways of N rows from b to x.

    Without room for ``events`` only ``counts`` (N,) is filled. With it, those of row n begin at
    ``places[n]``: the feature, and the leaf that is entered; −2 − leaf for one that is left, −1 for
    a crossing at the time of another.
    """
    for row in range(len(b)):
        stack = np.empty((nodes.depth + 2, 3), np.int64)
        times = np.empty((nodes.depth + 2, 2), np.float64)
        number = 0
        for tree in range(len(nodes.roots)):
            number += _list_tree(
                nodes.roots[tree],
                b[row],
                x[row],
                switches[row],
                nodes,
                stack,
                times,
                places[row] + number,
                events,
                moments,
            )
        counts[row] = number
