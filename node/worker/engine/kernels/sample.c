/* Draws a token: penalties, a kept set, Gumbel noise. The whole vocabulary is never sorted, and no
 * logarithm is taken of a token that cannot win.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "ayni_sample.h"

#include <math.h>

#include "sample_math.h"

#define MILLION 1000000.0
#define WEIGHT_ONE 0x1p44 /* AYNI_VOCABULARY_MAX of it do not overflow. */
#define LANES 8
#define FEW 32 /* One token of so many is few. */
#define TAIL 33 /* 0 to 32 leading zeros of the noise's bits. */

#if defined(__x86_64__) && defined(__GNUC__)
#define WIDE(name) __attribute__((target(name)))
#define INLINE static inline __attribute__((always_inline))
#else
#define INLINE static inline
#endif

typedef struct {
    const float *f;    /* [vocabulary]: the logits as they came. */
    const double *l;   /* [vocabulary]: they after penalties, bias and mask; NULL: as they came. */
    int32_t size, path;
    double best;       /* The largest. */
    double temperature;
    uint64_t key;
    double tail[TAIL]; /* The most that noise adds, by the leading zeros of its bits. */
    int32_t token;     /* The winner so far, and its score. */
    double score;
} search;

size_t ayni_sample_scratch_bytes(int32_t vocabulary) {
    size_t padded = vocabulary < 1 ? 0 : ((size_t)vocabulary + 63) / 64 * 64;
    return padded * (sizeof(double) + sizeof(int32_t));
}

/* A logit. Where nothing was to be changed no copy is made: the copy would be twice as large as
 * all that is read, and most of the time of drawing. */
INLINE double at(const float *f, const double *l, int32_t j) {
    return l ? l[j] : (double)f[j];
}

static int all_finite(const float *f, int32_t size) {
    int32_t wrong = 0;
    for (int32_t j = 0; j < size; j++) wrong |= !(f[j] <= FLT_MAX && f[j] >= -FLT_MAX);
    return !wrong;
}

INLINE double largest_body(const float *f, const double *l, int32_t size) {
    double lane[LANES];
    int32_t j = 0;
    for (int k = 0; k < LANES; k++) lane[k] = -INFINITY;
    for (; j + LANES <= size; j += LANES)
        for (int k = 0; k < LANES; k++)
            lane[k] = at(f, l, j + k) > lane[k] ? at(f, l, j + k) : lane[k];
    for (; j < size; j++) lane[0] = at(f, l, j) > lane[0] ? at(f, l, j) : lane[0];
    for (int k = 1; k < LANES; k++) lane[0] = lane[k] > lane[0] ? lane[k] : lane[0];
    return lane[0];
}

static double largest(const search *s) {
    return s->l ? largest_body(NULL, s->l, s->size) : largest_body(s->f, NULL, s->size);
}

static void penalise(const ayni_draw *draw, double *l, int32_t *count) {
    double repetition = draw->repetition_millionths / MILLION;
    double frequency = draw->frequency_millionths / MILLION;
    double presence = draw->presence_millionths / MILLION;
    const int32_t *part[] = {draw->prompt, draw->answer};
    const int32_t length[] = {draw->prompt_tokens, draw->answer_tokens};
    for (int k = 0; k < 2; k++)
        for (int32_t i = 0; i < length[k]; i++) count[part[k][i]] = -1;
    for (int k = 0; k < 2; k++)
        for (int32_t i = 0; i < length[k]; i++) {
            int32_t token = part[k][i];
            if (count[token] == 0) continue; /* It had its turn. */
            count[token] = 0;
            l[token] = l[token] > 0.0 ? l[token] / repetition : l[token] * repetition;
        }
    for (int32_t i = 0; i < draw->answer_tokens; i++) count[draw->answer[i]]++;
    for (int32_t i = 0; i < draw->answer_tokens; i++) {
        int32_t token = draw->answer[i];
        if (count[token] == 0) continue;
        l[token] = (l[token] - frequency * count[token]) - presence;
        count[token] = 0;
    }
}

/* 0, and nothing is done, where the draw changes no logit. */
static int adjust(const ayni_draw *draw, const float *logits, double *l, int32_t *count) {
    int penalties = draw->repetition_millionths != 1000000 || draw->frequency_millionths ||
                    draw->presence_millionths;
    if (!penalties && !draw->biases && !draw->allowed) return 0;
    for (int32_t j = 0; j < draw->vocabulary; j++) l[j] = logits[j];
    if (penalties) penalise(draw, l, count);
    for (int32_t i = 0; i < draw->biases; i++)
        if (draw->bias_token[i] < draw->vocabulary)
            l[draw->bias_token[i]] += draw->bias_millionths[i] / MILLION;
    if (draw->allowed)
        for (int32_t j = 0; j < draw->vocabulary; j++)
            if (!(draw->allowed[j / 8] >> (j % 8) & 1)) l[j] = -INFINITY;
    return 1;
}

/* Some tokens: from `first` to before `end`, those of at least `least`. */
typedef struct {
    int32_t first, end;
    double least;
} part;

/* The sum of the weights of a part, e^((l - best) * inverse) in steps of 2^-44: whole numbers, so
 * that no order of the sum is another's. */
INLINE int64_t weigh_body(const float *f, const double *l, part p, double best, double inverse) {
    int64_t sum = 0;
    for (int32_t j = p.first; j < p.end; j++) {
        double value = at(f, l, j);
        /* Adding 2^52 rounds to a whole number and leaves it in the low bits. */
        double shifted = fixed_exp((value - best) * inverse) * WEIGHT_ONE + 0x1p52;
        int64_t weight = (int64_t)(bits_of(shifted) - 0x4330000000000000ULL);
        sum += value >= p.least ? weight : 0;
    }
    return sum;
}

INLINE int64_t weigh_part(const search *s, part p, double inverse) {
    return s->l ? weigh_body(NULL, s->l, p, s->best, inverse)
                : weigh_body(s->f, NULL, p, s->best, inverse);
}

#if defined(WIDE)
WIDE("avx512f,avx512bw,avx512vl")
static int64_t weigh_512(const search *s, part p, double inverse) {
    return weigh_part(s, p, inverse);
}

WIDE("avx2")
static int64_t weigh_256(const search *s, part p, double inverse) {
    return weigh_part(s, p, inverse);
}
#endif

static int64_t weigh(const search *s, part p, double inverse) {
#if defined(WIDE)
    if (s->path == AYNI_AVX512_VNNI) return weigh_512(s, p, inverse);
    if (s->path != AYNI_PORTABLE) return weigh_256(s, p, inverse);
#endif
    return weigh_part(s, p, inverse);
}

static int64_t weigh_all(const search *s, double inverse) {
    part all = {0, s->size, -DBL_MAX};
    return weigh(s, all, inverse);
}

/* How many tokens come before this one: with a larger l, or an equal one and a smaller id. */
static int32_t place_of(const search *s, int32_t token) {
    double l = at(s->f, s->l, token);
    int32_t place = 0;
    for (int32_t j = 0; j < token; j++) place += at(s->f, s->l, j) >= l;
    for (int32_t j = token + 1; j < s->size; j++) place += at(s->f, s->l, j) > l;
    return place;
}

/* The weights of those, which are `place`. Where they are few the others are passed by, and not
 * weighed for nothing. */
static int64_t mass_before(const search *s, int32_t token, int32_t place, double inverse) {
    double l = at(s->f, s->l, token);
    part left = {0, token, l}, right = {token + 1, s->size, nextafter(l, INFINITY)};
    if (place > s->size / FEW) return weigh(s, left, inverse) + weigh(s, right, inverse);
    int64_t mass = 0;
    for (int32_t j = 0; place; j++) {
        double value = at(s->f, s->l, j);
        if (value < (j < token ? left : right).least || j == token) continue;
        part one = {j, j + 1, value};
        mass += weigh_part(s, one, inverse);
        place--;
    }
    return mass;
}

static int leading_zeros(uint32_t bits) {
#if defined(__GNUC__)
    return bits ? __builtin_clz(bits) : 32;
#else
    int zeros = 32;
    for (; bits; bits >>= 1) zeros--;
    return zeros;
#endif
}

INLINE void try_body(search *s, const float *f, const double *l, part p) {
    for (int32_t j = p.first; j < p.end; j++) {
        double value = at(f, l, j);
        if (value < p.least || value + s->tail[TAIL - 1] < s->score) continue;
        uint32_t bits = noise_bits(s->key, j);
        if (value + s->tail[leading_zeros(bits)] < s->score) continue;
        double score = value + s->temperature * noise_of(bits);
        if (score > s->score || (score == s->score && j < s->token)) {
            s->score = score;
            s->token = j;
        }
    }
}

/* Lets a part try to win. What a token's noise can be at the most is read from its bits: where that
 * is not enough, no logarithm is taken. */
static void try_part(search *s, part p) {
    if (s->l)
        try_body(s, NULL, s->l, p);
    else
        try_body(s, s->f, NULL, p);
}

/* The best of all tokens wins if it is kept. If not, none behind it in the order is kept either,
 * and the best of those before it is tried: each time about half of what is too much goes. */
static void draw_warm(search *s, const ayni_draw *draw) {
    double inverse = 1.0 / s->temperature, least = -DBL_MAX;
    int32_t first = s->token, bound = s->size;
    int64_t mass_max = INT64_MAX;
    if (draw->min_p_millionths)
        least = s->best + s->temperature * fixed_log(draw->min_p_millionths / MILLION);
    if (draw->top_p_millionths < 1000000) {
        int64_t whole = weigh_all(s, inverse);
        int64_t rest = whole % 1000000 * draw->top_p_millionths;
        mass_max = whole / 1000000 * draw->top_p_millionths + (rest + 999999) / 1000000;
    }
    for (int k = 0; k < TAIL; k++) /* v >= 2^-(k + 1), and -log(-log1p(-v)) < -log v. */
        s->tail[k] = s->temperature * ((k + 1) * 0.6932);
    for (;;) {
        part left = {0, bound, least}, right = {bound, s->size, nextafter(least, INFINITY)};
        s->token = first;
        s->score = s->best + s->temperature * noise_of(noise_bits(s->key, first));
        try_part(s, left);
        try_part(s, right);
        int32_t place = draw->top_k || mass_max != INT64_MAX ? place_of(s, s->token) : 0;
        if ((!draw->top_k || place < draw->top_k) &&
            (mass_max == INT64_MAX || mass_before(s, s->token, place, inverse) < mass_max))
            return;
        bound = s->token;
        least = at(s->f, s->l, bound);
    }
}

/* The likeliest tokens in order: a list of few, into which few of the many have to be put. */
static int32_t likeliest(const search *s, int32_t most, int32_t *token) {
    int32_t found = 0;
    double least = -INFINITY; /* A token must be above it. */
    for (int32_t j = 0; most && j < s->size; j++) {
        double value = at(s->f, s->l, j);
        if (!(value > least)) continue;
        int32_t place = found < most ? found++ : found - 1;
        for (; place > 0 && value > at(s->f, s->l, token[place - 1]); place--)
            token[place] = token[place - 1];
        token[place] = j;
        if (found == most) least = at(s->f, s->l, token[most - 1]);
    }
    return found;
}

static void tell(const search *s, int32_t asked, int32_t *token, int64_t *micrologprob) {
    double log_whole = fixed_log((double)weigh_all(s, 1.0) / WEIGHT_ONE);
    int32_t found = 1 + likeliest(s, asked - 1, token + 1);
    for (int32_t i = 0; i < asked; i++) {
        if (i >= found) {
            token[i] = -1;
            micrologprob[i] = AYNI_MICROLOGPROB_MIN;
            continue;
        }
        double value = ((at(s->f, s->l, token[i]) - s->best) - log_whole) * MILLION;
        value = value < AYNI_MICROLOGPROB_MIN ? AYNI_MICROLOGPROB_MIN : value;
        /* The nearest whole number, halves to the even one; the sum is never above 0. */
        micrologprob[i] = (int64_t)((value + ROUNDING) - ROUNDING);
    }
}

static int tokens_are_of(const int32_t *token, int32_t count, int32_t limit) {
    if (count < 0 || (count && !token)) return 0;
    for (int32_t i = 0; i < count; i++)
        if (token[i] < 0 || token[i] >= limit) return 0;
    return 1;
}

static int is_sound(const ayni_draw *draw) {
    return draw->vocabulary > 0 && draw->vocabulary <= AYNI_VOCABULARY_MAX &&
           draw->temperature_millionths >= 0 &&
           draw->path >= AYNI_PORTABLE && draw->path <= AYNI_NEON &&
           draw->repetition_millionths > 0 && draw->top_k >= 0 && draw->alternatives >= 0 &&
           draw->alternatives <= AYNI_ALTERNATIVES_MAX &&
           (!draw->biases || draw->bias_millionths) &&
           tokens_are_of(draw->prompt, draw->prompt_tokens, draw->vocabulary) &&
           tokens_are_of(draw->answer, draw->answer_tokens, draw->vocabulary) &&
           tokens_are_of(draw->bias_token, draw->biases, INT32_MAX);
}

int32_t ayni_sample(const float *logits, const ayni_draw *draw, void *scratch, int32_t *token,
                    int64_t *micrologprob) {
    if (!logits || !draw || !scratch || !token || !is_sound(draw)) return AYNI_BAD_ARGUMENT;
    if (draw->alternatives && !micrologprob) return AYNI_BAD_ARGUMENT;
    if (!all_finite(logits, draw->vocabulary)) return AYNI_NO_NUMBER;
    search s = {.f = logits, .size = draw->vocabulary, .path = draw->path, .key = draw->key};
    double *l = scratch;
    s.temperature = draw->temperature_millionths / MILLION;
    if (adjust(draw, logits, l, (int32_t *)(l + ((size_t)s.size + 63) / 64 * 64))) s.l = l;
    s.best = largest(&s);
    if (s.best == -INFINITY) return AYNI_NOTHING_ALLOWED;
    while (at(s.f, s.l, s.token) != s.best) s.token++;
    if (draw->temperature_millionths) draw_warm(&s, draw);
    token[0] = s.token;
    if (draw->alternatives) tell(&s, draw->alternatives, token, micrologprob);
    return AYNI_OK;
}

void ayni_sample_exp(const double *x, double *y, int32_t count) {
    for (int32_t i = 0; i < count; i++) y[i] = fixed_exp(x[i]);
}

void ayni_sample_log(const double *x, double *y, int32_t count) {
    for (int32_t i = 0; i < count; i++) y[i] = fixed_log(x[i]);
}

void ayni_sample_noise(uint64_t key, int32_t first, int32_t count, double *noise) {
    for (int32_t i = 0; i < count; i++) noise[i] = noise_of(noise_bits(key, first + i));
}
