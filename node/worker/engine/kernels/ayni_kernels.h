/* The C interface of the native engine: pointers and sizes in, no torch, no Python, no globals.
 *
 * One call of `ayni_step` runs a whole step of a model for a mixed batch: rows of prompts and rows
 * of answers alike. All memory but the threads' is the caller's. The bits of what comes out depend
 * on the weights, the tokens and their positions alone: never on the batch, the chunks, the blocks,
 * the threads, the path, or the compiler. A change of one of these bits is a new mode's name.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef AYNI_KERNELS_H
#define AYNI_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define AYNI_API __declspec(dllexport)
#else
#define AYNI_API __attribute__((visibility("default")))
#endif

#define AYNI_ABI 1              /* Of this header: the caller checks it. */
#define AYNI_BLOCK_TOKENS 32    /* Tokens of one block of the cache of keys and values. */
#define AYNI_GROUP 32           /* Columns that share a scale, in weights and activations. */
#define AYNI_ROWS 8             /* Rows that are packed together. */
#define AYNI_THREADS_MAX 64
#define AYNI_BATCH_ROWS_MAX 512 /* Rows of one step, all sequences together. */

/* Ways to compute. All give the same bits; a processor has those that ayni_paths() names. */
enum { AYNI_PORTABLE = 0, AYNI_AVX2 = 1, AYNI_AVX_VNNI = 2, AYNI_AVX512_VNNI = 3, AYNI_NEON = 4 };

enum { AYNI_OK = 0, AYNI_BAD_ARGUMENT = 1, AYNI_NO_THREADS = 2, AYNI_NO_PATH = 3 };

/* How a matrix is packed. Rows come in eights and columns in groups of 32; the groups of eight rows
 * follow each other along the columns, then come the next eight rows. Rows are padded to eights
 * with zeros. In one group of eight rows:
 *   Q4: 8 float16 scales, 8 float16 minima, 128 bytes: byte 32 * c + 4 * r + i (c, i < 4) has, of
 *       row r, the value of column 4 * c + i in its low half and of column 16 + 4 * c + i in its
 *       high half; a weight is value * scale + minimum.
 *   Q8: 8 float16 scales, 256 bytes: byte 32 * c + 4 * r + i (c < 8, i < 4) is the signed value of
 *       row r, column 4 * c + i, never -128; a weight is value * scale. */
enum { AYNI_Q4 = 0, AYNI_Q8 = 1 };
#define AYNI_Q4_BYTES 160
#define AYNI_Q8_BYTES 272

enum { AYNI_SILU = 0, AYNI_GELU_TANH = 1 };

typedef struct {
    const uint8_t *data; /* 64-byte aligned; rows_padded / 8 * columns / 32 groups. */
    const float *bias;   /* One number a row, or NULL. */
    int32_t format;
    int32_t rows;        /* Without padding. */
    int32_t columns;     /* A multiple of 32. */
    int32_t reserved;
} ayni_matrix;

/* Norm weights are those that are multiplied by: a family that stores w and means 1 + w was
 * resolved before. NULL where a family has no such norm. */
typedef struct {
    ayni_matrix query_key_value;   /* Rows: all queries, then keys, then values; halves are rotated,
                                      as in the original order of rows, not interleaved. */
    ayni_matrix attention_out;
    ayni_matrix gate_up;           /* Rows: gate, then up. */
    ayni_matrix down;
    const float *attention_norm, *feed_norm;
    const float *query_norm, *key_norm;                       /* Of head_width: Qwen 3, Gemma 3. */
    const float *attention_post_norm, *feed_post_norm;        /* Of width: Gemma. */
    const float *rotations;        /* [context][head_width / 2][2]: cosine, sine. */
    int32_t window;                /* Tokens that are seen, itself counted; 0: all. */
    int32_t reserved;
} ayni_layer;

typedef struct {
    int32_t abi;                   /* AYNI_ABI. */
    int32_t layers, width, inner_width, heads, key_heads, head_width, vocabulary, context;
    int32_t activation;
    int32_t blocks;                /* Of the cache. */
    int32_t rows_max;              /* Of a step; at most AYNI_BATCH_ROWS_MAX. */
    float norm_epsilon, attention_scale, attention_softcap, logit_softcap, embedding_scale;
    const ayni_layer *layer;       /* [layers] */
    ayni_matrix embedding, head;   /* [vocabulary][width]; the same where they are tied. */
    const float *norm;
    uint16_t *keys, *values;       /* float16, [blocks][layers][key_heads] of
                                      [head_width][AYNI_BLOCK_TOKENS] for keys and
                                      [AYNI_BLOCK_TOKENS][head_width] for values. */
    void *scratch;                 /* ayni_scratch_bytes(), 64-byte aligned. */
} ayni_model;

/* One step. Row i is token[i] at position[i] of sequence[i]. The rows of a sequence stand together
 * in the order of their positions; all earlier positions are in the cache. */
typedef struct {
    int32_t rows, sequences, table_width, outputs;
    const int32_t *token, *sequence, *position; /* [rows] */
    const int32_t *table;          /* [sequences][table_width]: the blocks of each sequence. */
    const int32_t *output;         /* [outputs]: rows whose hidden row and logits are wanted. */
    float *hidden;                 /* [outputs][width]: after the final norm. */
    float *logits;                 /* [outputs][vocabulary], or NULL. */
} ayni_batch;

typedef struct ayni_pool ayni_pool;

/* A bit (1 << path) for each path that this build and this processor have. */
AYNI_API uint32_t ayni_paths(void);

/* What compiled this, e.g. "gcc 12.2.0". */
AYNI_API const char *ayni_compiler(void);

/* Threads that wait asleep between steps; the caller's thread is one of them. NULL: none can be
 * had, or the number is not 1 to AYNI_THREADS_MAX. */
AYNI_API ayni_pool *ayni_pool_open(int32_t threads);
AYNI_API void ayni_pool_close(ayni_pool *pool);

/* 0 for sizes that ayni_step would refuse; no pointer of the model is looked at. `threads` is the
 * pool's. */
AYNI_API size_t ayni_scratch_bytes(const ayni_model *model, int32_t threads);

/* Checks every size, token, position and block before anything is touched. Not for two threads at
 * once with one pool or one model. */
AYNI_API int32_t ayni_step(ayni_pool *pool, int32_t path, const ayni_model *model,
                           const ayni_batch *batch);

/* Cosines and sines, [positions][half][2] float32, computed in float64 by fixed operations: the
 * angle is position * scale * base^(-i / half) / divisor[i]; `divisor` may be NULL. */
AYNI_API void ayni_rotations(float *table, int32_t positions, int32_t half, double base,
                             double scale, const float *divisor);

#endif
