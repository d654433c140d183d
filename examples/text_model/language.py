"""A small language model in NumPy: a recurrent network that predicts the next character.

The recurrent weights are random and fixed. Only the readout is trained, by ridge regression over the states that the
corpus produces (an echo state network), which takes a tenth of a second. Generation costs the same as in any recurrent
model: matrix products for every character.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

HIDDEN = 640
CHARACTERS_PER_TOKEN = 4
"""The length of a token, as of a common English one."""
CANDIDATES = 24
"""Continuations computed for every token; the most likely one is used."""
_STREAMS = 32
_WARMUP_STEPS = 8
_SPECTRAL_RADIUS = 0.9
_RIDGE = 0.3
_SEED = 20260101


class TextModel:
    """Weights and vocabulary. A `Generation` holds the state of one text."""

    def __init__(self, alphabet: str, recurrent: np.ndarray, entry: np.ndarray, readout: np.ndarray) -> None:
        self.alphabet = alphabet
        self.number_of = {character: number for number, character in enumerate(alphabet)}
        self.recurrent = recurrent
        self.entry = entry
        self.readout = readout

    @classmethod
    def train(cls, corpus: str) -> TextModel:
        """Fit the readout to the corpus."""
        alphabet = "".join(sorted(set(corpus)))
        random = np.random.default_rng(_SEED)
        recurrent = random.standard_normal((HIDDEN, HIDDEN), dtype=np.float32)
        # A random normal matrix has a spectral radius of about sqrt(n).
        recurrent *= _SPECTRAL_RADIUS / np.sqrt(HIDDEN)
        entry = random.standard_normal((len(alphabet), HIDDEN), dtype=np.float32)
        model = cls(alphabet, recurrent, entry, np.zeros((HIDDEN, len(alphabet)), np.float32))
        numbers = np.array([model.number_of[character] for character in corpus])
        # Split the corpus into parallel streams, so that one matrix product advances all of them.
        length = (len(numbers) - 1) // _STREAMS
        inputs = numbers[: _STREAMS * length].reshape(_STREAMS, length)
        targets = numbers[1 : _STREAMS * length + 1].reshape(_STREAMS, length)
        state = np.zeros((_STREAMS, HIDDEN), np.float32)
        states = np.empty((length, _STREAMS, HIDDEN), np.float32)
        for step in range(length):
            state = np.tanh(state @ recurrent + entry[inputs[:, step]])
            states[step] = state
        training_states = states[_WARMUP_STEPS:].reshape(-1, HIDDEN)
        one_hot_targets = np.eye(len(alphabet), dtype=np.float32)[targets[:, _WARMUP_STEPS:].T.reshape(-1)]
        gram = training_states.T @ training_states
        gram.flat[:: HIDDEN + 1] += _RIDGE
        model.readout = np.linalg.solve(gram, training_states.T @ one_hot_targets).astype(np.float32)
        return model

    @classmethod
    def load(cls, corpus: str, directory: Path) -> tuple[TextModel, bool]:
        """The model, and whether it came from disk. Trains and saves it if the corpus has no saved model."""
        mark = hashlib.sha256(f"{corpus}{HIDDEN}{_SEED}{_RIDGE}".encode()).hexdigest()[:16]
        saved = directory / f"text-model-{mark}.npz"
        if saved.exists():
            with np.load(saved) as file:
                return cls(str(file["alphabet"]), file["recurrent"], file["entry"], file["readout"]), True
        model = cls.train(corpus)
        new = directory / f"text-model-{mark}.new.npz"
        np.savez(
            new, alphabet=model.alphabet, recurrent=model.recurrent, entry=model.entry, readout=model.readout
        )
        new.replace(saved)
        return model, False


class Generation:
    """The state of one generated text."""

    def __init__(self, model: TextModel, prompt: str, *, temperature: float, seed: int) -> None:
        self._model = model
        self._state = np.zeros((CANDIDATES, HIDDEN), np.float32)
        self._sharpness = 7.0 / max(temperature, 1e-3)
        self._random = np.random.default_rng(seed)
        self._characters = np.full(CANDIDATES, model.number_of.get("\n", 0))
        for character in prompt[-32:]:
            number = model.number_of.get(character)
            if number is not None:
                self._step()
                self._characters[:] = number

    def token(self) -> str:
        """The next token: every candidate generates one, and the state of the most likely one is copied to all."""
        tokens = np.empty((CHARACTERS_PER_TOKEN, CANDIDATES), np.intp)
        likelihood = np.zeros(CANDIDATES)
        rows = np.arange(CANDIDATES)
        for position in range(CHARACTERS_PER_TOKEN):
            scores = (self._step() @ self._model.readout) * self._sharpness
            odds = np.exp(scores - scores.max(axis=1, keepdims=True))
            odds /= odds.sum(axis=1, keepdims=True)
            draws = self._random.random((CANDIDATES, 1))
            self._characters = np.minimum((odds.cumsum(axis=1) < draws).sum(axis=1), odds.shape[1] - 1)
            likelihood += np.log(odds[rows, self._characters] + 1e-12)
            tokens[position] = self._characters
        best = int(likelihood.argmax())
        self._state[:] = self._state[best]
        self._characters = np.full(CANDIDATES, tokens[-1, best])
        return "".join(self._model.alphabet[number] for number in tokens[:, best])

    def _step(self) -> np.ndarray:
        model = self._model
        self._state = np.tanh(self._state @ model.recurrent + model.entry[self._characters])
        return self._state
