/* How the native engine draws a token: exactly, so that anyone can draw it again.
 *
 * The rule and its arithmetic are in protocol/SPEC.md, "Sampling". The bits of what comes out
 * depend on the logits and the draw alone: never on the processor, the compiler or its options, as
 * long as it contracts no operations (-ffp-contract=off).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef AYNI_SAMPLE_H
#define AYNI_SAMPLE_H

#include "ayni_kernels.h"

#define AYNI_ALTERNATIVES_MAX 21
#define AYNI_VOCABULARY_MAX ((1 << 19) - 1)
#define AYNI_MICROLOGPROB_MIN (-9999000000LL)

/* Beyond AYNI_OK and AYNI_BAD_ARGUMENT. */
enum { AYNI_NO_NUMBER = 16, AYNI_NOTHING_ALLOWED = 17 };

/* How one token is to be drawn. What ends in _millionths is divided by a million, once. */
typedef struct {
    uint64_t key;                  /* Of the noise: BLAKE2b of seed and place, as the rule says. */
    int64_t temperature_millionths, top_p_millionths, min_p_millionths;
    int64_t repetition_millionths, frequency_millionths, presence_millionths;
    const int32_t *prompt, *answer; /* The tokens before this one; penalties look at them. */
    const int32_t *bias_token;      /* A token that the model does not have changes nothing. */
    const int64_t *bias_millionths;
    const uint8_t *allowed;         /* A bit a token, the lowest of a byte first; or NULL. */
    int32_t vocabulary, prompt_tokens, answer_tokens, biases;
    int32_t top_k;
    int32_t path;                   /* One of those that ayni_paths() names: all give the same. */
    int32_t alternatives;           /* 0 to AYNI_ALTERNATIVES_MAX: itself, then the likeliest. */
} ayni_draw;

/* Bytes that ayni_sample works in, 64-byte aligned; nothing in them lives from call to call. */
AYNI_API size_t ayni_sample_scratch_bytes(int32_t vocabulary);

/* Draws from one row of logits. `token` takes the drawn one and, from its second place, the
 * likeliest, -1 after the last that there is; it has room for `alternatives`, and for one at least.
 * `micrologprob` has as many, or is NULL where no alternatives are asked for.
 * AYNI_NO_NUMBER: a logit is not a number or is infinite. AYNI_NOTHING_ALLOWED: all are masked.
 * AYNI_BAD_ARGUMENT: a size or a token that cannot be; nothing was written. */
AYNI_API int32_t ayni_sample(const float *logits, const ayni_draw *draw, void *scratch,
                             int32_t *token, int64_t *micrologprob);

/* The arithmetic itself, for tests: e^x for x <= 0, the natural logarithm of positive normal x,
 * and the noise of `count` token ids from `first`. */
AYNI_API void ayni_sample_exp(const double *x, double *y, int32_t count);
AYNI_API void ayni_sample_log(const double *x, double *y, int32_t count);
AYNI_API void ayni_sample_noise(uint64_t key, int32_t first, int32_t count, double *noise);

#endif
