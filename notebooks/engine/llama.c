/* A small Llama in one file of plain C, float32, one text at a time: the engine of 11_port_your_own.ipynb.
 *
 *     cc -std=c99 -O2 -o llama llama.c -lm
 *     ./llama MODEL GOLDEN OUT       run the calls of a golden trace, write the activations to the folder OUT
 *     ./llama MODEL N ID,ID,...      print the ids that N greedy steps add to these
 *
 * MODEL is a folder in Hugging Face form with one model.safetensors (F32 or BF16) and no rotary scaling. Arrays lie row
 * by row, the last axis fastest: E hidden size, F feed-forward size, V vocabulary, H query heads, K key/value heads, D
 * head size, S tokens of this call, T tokens so far. The machine must be little-endian, as the files are.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CAPACITY = 512, MAX_CALLS = 64, MAX_LAYERS = 64, NO_LAYER = -1 };

static void fail(const char *what, const char *which) {
    fprintf(stderr, "llama: %s: %s\n", what, which);
    exit(2);
}

/* Files */

static FILE *open_file(const char *folder, const char *name, const char *mode) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, mode);
    if (!file) fail("cannot be opened", path);
    return file;
}

static float *zeros(size_t count) {
    float *x = calloc(count, sizeof *x);
    if (!x) fail("no memory", "for an array");
    return x;
}

static char *read_file(const char *folder, const char *name) {
    FILE *file = open_file(folder, name, "rb");
    fseek(file, 0, SEEK_END);
    size_t size = (size_t)ftell(file);
    rewind(file);
    char *bytes = (char *)zeros(size / sizeof(float) + 1); /* a zero byte behind the last one */
    if (fread(bytes, 1, size, file) != size) fail("cannot be read", name);
    fclose(file);
    return bytes;
}

/* What stands behind a key of a JSON text. */
static const char *value_of(const char *json, const char *key) {
    char quoted[128];
    snprintf(quoted, sizeof quoted, "\"%s\":", key);
    const char *found = strstr(json, quoted);
    if (!found) fail("no such key", key);
    found += strlen(quoted);
    return found + strspn(found, " \n");
}

static int whole(const char *json, const char *key) { return (int)strtol(value_of(json, key), NULL, 10); }
static float real(const char *json, const char *key) { return strtof(value_of(json, key), NULL); }

/* A safetensors tensor as float32. Eight bytes give the length of the JSON header; offsets count from its end. */
static float *tensor(const char *file, const char *name, size_t count) {
    uint64_t header;
    memcpy(&header, file, 8);
    const char *entry = value_of(file + 8, name), *offsets = value_of(entry, "data_offsets") + 1;
    char *comma;
    size_t start = strtoull(offsets, &comma, 10), stop = strtoull(comma + 1, NULL, 10);
    size_t width = strncmp(value_of(entry, "dtype"), "\"BF16\"", 6) ? 4 : 2;
    if (stop - start != count * width) fail("not of the expected size", name);
    float *x = zeros(count);
    for (size_t i = 0; i < count; i++) /* a bfloat16 is the upper half of a float32 */
        memcpy((char *)&x[i] + 4 - width, file + 8 + header + start + i * width, width);
    return x;
}

/* The model, its caches, and what a call computes */

typedef struct {
    float *attention_norm, *q, *k, *v, *o, *ffn_norm, *gate, *up, *down;
    float *cache_k, *cache_v; /* [K, CAPACITY, D] */
} Layer;

static int E, F, V, H, K, D, L;
static float eps, theta;
static float *embed, *last_norm, *head;
static Layer layers[MAX_LAYERS];
static int length, token[CAPACITY], position[CAPACITY]; /* so many slots of the caches are filled, with these */
static float *x, *normed, *added, *q, *k, *v, *scores, *context, *gate, *up, *logits;

static float *of_layer(const char *file, int n, const char *part, int rows, int columns) {
    char name[128];
    snprintf(name, sizeof name, "model.layers.%d.%s.weight", n, part);
    return tensor(file, name, (size_t)rows * columns);
}

static void load(const char *folder) {
    char *config = read_file(folder, "config.json"), *file = read_file(folder, "model.safetensors");
    E = whole(config, "hidden_size"), F = whole(config, "intermediate_size"), V = whole(config, "vocab_size");
    H = whole(config, "num_attention_heads"), K = whole(config, "num_key_value_heads"), D = whole(config, "head_dim");
    L = whole(config, "num_hidden_layers"), eps = real(config, "rms_norm_eps"), theta = real(config, "rope_theta");
    if (L > MAX_LAYERS) fail("too many layers", folder);
    if (strncmp(value_of(config, "rope_scaling"), "null", 4)) fail("rotary scaling is not supported", folder);
    embed = tensor(file, "model.embed_tokens.weight", (size_t)V * E);
    for (int n = 0; n < L; n++) {
        Layer *w = &layers[n];
        w->attention_norm = of_layer(file, n, "input_layernorm", 1, E);
        w->q = of_layer(file, n, "self_attn.q_proj", H * D, E);
        w->k = of_layer(file, n, "self_attn.k_proj", K * D, E);
        w->v = of_layer(file, n, "self_attn.v_proj", K * D, E);
        w->o = of_layer(file, n, "self_attn.o_proj", E, H * D);
        w->ffn_norm = of_layer(file, n, "post_attention_layernorm", 1, E);
        w->gate = of_layer(file, n, "mlp.gate_proj", F, E);
        w->up = of_layer(file, n, "mlp.up_proj", F, E);
        w->down = of_layer(file, n, "mlp.down_proj", E, F);
        w->cache_k = zeros((size_t)K * CAPACITY * D), w->cache_v = zeros((size_t)K * CAPACITY * D);
    }
    last_norm = tensor(file, "model.norm.weight", (size_t)E);
    int tied = !strncmp(value_of(config, "tie_word_embeddings"), "true", 4);
    head = tied ? embed : tensor(file, "lm_head.weight", (size_t)V * E);
    free(config), free(file);

    x = zeros((size_t)CAPACITY * E), normed = zeros((size_t)CAPACITY * E), added = zeros((size_t)CAPACITY * E);
    q = zeros((size_t)CAPACITY * H * D), k = zeros((size_t)CAPACITY * K * D), v = zeros((size_t)CAPACITY * K * D);
    scores = zeros((size_t)H * CAPACITY * CAPACITY), context = zeros((size_t)CAPACITY * H * D);
    gate = zeros((size_t)CAPACITY * F), up = zeros((size_t)CAPACITY * F), logits = zeros((size_t)CAPACITY * V);
}

static void print(FILE *file, const char *before, const int *numbers, int count, const char *after) {
    fprintf(file, "%s", before);
    for (int i = 0; i < count; i++) fprintf(file, i ? ",%d" : "%d", numbers[i]);
    fprintf(file, "%s", after);
}

/* dump begins: a safetensors file for each tensor, and the manifest that lists them */
static const char *out; /* the folder; without one nothing is written */
static FILE *manifest;
static int calls, tensors;

/* x [a, b, c], or [a, b] where c is 0; its rows lie `stride` apart, or without a gap where that is 0. */
static void dump(const char *name, int layer, const float *x, int a, int b, int c, int stride) {
    char full[64], shape[64], path[80], header[256];
    if (!out) return;
    int row = b * (c ? c : 1);
    layer < 0 ? snprintf(full, sizeof full, "%s", name) : snprintf(full, sizeof full, "layers.%d.%s", layer, name);
    snprintf(shape, sizeof shape, c ? "[1,%d,%d,%d]" : "[1,%d,%d]", a, b, c);
    snprintf(path, sizeof path, "%d.%s.safetensors", calls, full);
    uint64_t size = (uint64_t)snprintf(header, sizeof header, "{\"%s\":{\"dtype\":\"F32\",\"shape\":%s,"
                                       "\"data_offsets\":[0,%d]}}", full, shape, 4 * a * row);
    FILE *file = open_file(out, path, "wb");
    fwrite(&size, 8, 1, file), fwrite(header, 1, size, file);
    for (int i = 0; i < a; i++) fwrite(x + (size_t)i * (stride ? stride : row), 4, row, file);
    if (ferror(file) | fclose(file)) fail("cannot be written", path);
    fprintf(manifest, "%s\n{\"name\":\"%s\",\"call\":%d,\"shape\":%s,\"dtype\":\"float32\",\"file\":\"%s\"}",
            tensors++ ? "," : "", full, calls, shape, path);
}
/* dump ends */

/* The steps */

/* x [S, in] times the transpose of w [rows, in]: y [S, rows] */
static void multiply(float *y, const float *x, const float *w, int S, int in, int rows) {
    for (int s = 0; s < S; s++, x += in, y += rows)
        for (int r = 0; r < rows; r++) {
            float sum = 0;
            for (int i = 0; i < in; i++) sum += x[i] * w[(size_t)r * in + i];
            y[r] = sum;
        }
}

static void rms_norm(float *y, const float *x, const float *weight, int S) {
    for (int s = 0; s < S; s++, x += E, y += E) {
        float squares = 0;
        for (int i = 0; i < E; i++) squares += x[i] * x[i];
        float scale = 1 / sqrtf(squares / E + eps);
        for (int i = 0; i < E; i++) y[i] = x[i] * scale * weight[i];
    }
}

/* Turn pair i of every head of x [S, heads, D] by position times theta^(-2i/D). */
static void rotate(float *x, int heads, int S) {
    for (int s = 0; s < S; s++)
        for (int h = 0; h < heads; h++, x += D)
            for (int i = 0; i < D / 2; i++) {
                double angle = position[length + s] * pow(theta, -2.0 * i / D);
                float cosine = (float)cos(angle), sine = (float)sin(angle);
                float *a = &x[i], *b = &x[i + D / 2];
                float turned = *a * cosine - *b * sine;
                *b = *b * cosine + *a * sine;
                *a = turned;
            }
}

/* Put new rows [S, K, D] behind those that the cache [K, CAPACITY, D] holds. */
static void store(float *cache, const float *rows, int S) {
    for (int s = 0; s < S; s++)
        for (int h = 0; h < K; h++, rows += D)
            memcpy(cache + ((size_t)h * CAPACITY + length + s) * D, rows, sizeof *rows * D);
}

/* The key/value head of a query head: each serves H / K in a row. */
static int kv_head(int h) {
    return h / (H / K);
}

/* Whether a query sees the slot t: only what is not behind its own position. */
static int sees(int query, int t) {
    return position[t] <= position[query];
}

/* The softmax of a row of scores over the slots that the query in slot `query` sees. */
static void softmax(float *row, int T, int query) {
    float top = -INFINITY, sum = 0;
    for (int t = 0; t < T; t++)
        if (sees(query, t) && row[t] > top) top = row[t];
    for (int t = 0; t < T; t++) sum += row[t] = sees(query, t) ? expf(row[t] - top) : 0;
    for (int t = 0; t < T; t++) row[t] /= sum;
}

/* q [S, H, D] against the caches: scores [H, S, T], context [S, H, D] */
static void attend(const Layer *w, int n, int S) {
    int T = length + S;
    for (int h = 0; h < H; h++)
        for (int s = 0; s < S; s++) {
            float *row = scores + ((size_t)h * S + s) * T;
            multiply(row, q + ((size_t)s * H + h) * D, w->cache_k + (size_t)kv_head(h) * CAPACITY * D, 1, D, T);
            for (int t = 0; t < T; t++) row[t] /= sqrtf((float)D);
        }
    dump("scores", n, scores, H, S, T, 0);
    for (int h = 0; h < H; h++)
        for (int s = 0; s < S; s++) softmax(scores + ((size_t)h * S + s) * T, T, length + s);
    dump("attention_weights", n, scores, H, S, T, 0);
    memset(context, 0, sizeof *context * S * H * D);
    for (int h = 0; h < H; h++)
        for (int s = 0; s < S; s++)
            for (int t = 0; t < T; t++) {
                const float *value = w->cache_v + ((size_t)kv_head(h) * CAPACITY + t) * D;
                for (int i = 0; i < D; i++)
                    context[((size_t)s * H + h) * D + i] += scores[((size_t)h * S + s) * T + t] * value[i];
            }
    dump("attention_context", n, context, S, H, D, 0);
}

static void block(const Layer *w, int n, int S) {
    int T = length + S;
    rms_norm(normed, x, w->attention_norm, S);
    dump("attention_norm", n, normed, S, E, 0, 0);
    multiply(q, normed, w->q, S, E, H * D);
    multiply(k, normed, w->k, S, E, K * D);
    multiply(v, normed, w->v, S, E, K * D);
    dump("q", n, q, S, H, D, 0), dump("k", n, k, S, K, D, 0), dump("v", n, v, S, K, D, 0);
    rotate(q, H, S);
    rotate(k, K, S);
    dump("q_rotated", n, q, S, H, D, 0), dump("k_rotated", n, k, S, K, D, 0);
    store(w->cache_k, k, S);
    store(w->cache_v, v, S);
    dump("cache_k", n, w->cache_k, K, T, D, CAPACITY * D), dump("cache_v", n, w->cache_v, K, T, D, CAPACITY * D);
    attend(w, n, S);
    multiply(added, context, w->o, S, H * D, E);
    for (int i = 0; i < S * E; i++) x[i] += added[i];
    dump("attention_output", n, added, S, E, 0, 0), dump("attention_residual", n, x, S, E, 0, 0);

    rms_norm(normed, x, w->ffn_norm, S);
    multiply(gate, normed, w->gate, S, E, F);
    multiply(up, normed, w->up, S, E, F);
    dump("ffn_norm", n, normed, S, E, 0, 0), dump("ffn_gate", n, gate, S, F, 0, 0), dump("ffn_up", n, up, S, F, 0, 0);
    for (int i = 0; i < S * F; i++) gate[i] = gate[i] / (1 + expf(-gate[i])) * up[i];
    multiply(added, gate, w->down, S, F, E);
    for (int i = 0; i < S * E; i++) x[i] += added[i];
    dump("ffn_hidden", n, gate, S, F, 0, 0), dump("ffn_output", n, added, S, E, 0, 0), dump("output", n, x, S, E, 0, 0);
}

/* Run the next S ids. Returns the most likely one after them. */
static int forward(const int *ids, int S) {
    if (!S || length + S > CAPACITY) fail("the text is empty, or too long", "");
    for (int s = 0; s < S; s++) {
        if (ids[s] < 0 || ids[s] >= V) fail("an id is not in the vocabulary", "");
        token[length + s] = ids[s];
        position[length + s] = length + s;
        memcpy(x + (size_t)s * E, embed + (size_t)ids[s] * E, sizeof *x * E);
    }
    dump("embedding", NO_LAYER, x, S, E, 0, 0);
    for (int n = 0; n < L; n++) block(&layers[n], n, S);
    rms_norm(normed, x, last_norm, S);
    multiply(logits, normed, head, S, E, V);
    dump("final_norm", NO_LAYER, normed, S, E, 0, 0), dump("logits", NO_LAYER, logits, S, V, 0, 0);
    length += S;
    int best = 0;
    const float *last = logits + (size_t)(S - 1) * V;
    for (int i = 1; i < V; i++)
        if (last[i] > last[best]) best = i;
    return best;
}

/* Ids with commas between; how many. */
static int read_ids(const char *text, int *ids) {
    int count = 0;
    for (char *end;; text = end + 1) {
        if (count == CAPACITY) fail("the text is too long", "");
        ids[count++] = (int)strtol(text, &end, 10);
        if (*end != ',') return count;
    }
}

/* The ids of a golden trace, in the same calls: those that it decoded are given, not chosen. */
static void run_calls(const char *golden, const char *folder) {
    int ids[CAPACITY], end[MAX_CALLS + 1] = {0};
    /* dump begins */
    out = folder, manifest = open_file(out, "manifest.json", "w");
    fprintf(manifest, "{\"format\":\"llama-core trace\",\"version\":1,\"producer\":{\"name\":\"llama.c\"},\"model\":{},"
            "\"compute_dtype\":\"float32\",\"storage_dtype\":\"float32\",\"rope_layout\":\"half\",\"tensors\":[");
    /* dump ends */
    for (const char *at = read_file(golden, "manifest.json"); (at = strstr(at, "\"input_ids\":"));) {
        if (calls == MAX_CALLS) fail("too many calls", golden);
        at = strchr(at, '[');
        forward(ids, read_ids(at + strspn(at, "[ \n"), ids));
        end[++calls] = length;
    }
    /* dump begins */
    for (int n = 0; n < calls; n++) {
        int first = end[n], count = end[n + 1] - first;
        print(manifest, n ? ",\n{\"input_ids\":[[" : "],\n\"calls\":[{\"input_ids\":[[", token + first, count, "]],");
        print(manifest, "\"positions\":[[", position + first, count, "]]}");
    }
    fprintf(manifest, "]}\n"), fclose(manifest);
    /* dump ends */
}

static void generate(const char *text, int steps) {
    int ids[CAPACITY], chosen[CAPACITY], count = read_ids(text, ids);
    if (count + steps > CAPACITY) fail("the text is too long", "");
    chosen[0] = forward(ids, count);
    for (int n = 1; n < steps; n++) chosen[n] = forward(&chosen[n - 1], 1);
    print(stdout, "", chosen, steps, "\n");
}

int main(int count, char **arguments) {
    if (count != 4) fail("usage", "llama MODEL GOLDEN OUT, or llama MODEL N ID,ID,...");
    load(arguments[1]);
    int steps = atoi(arguments[2]);
    if (steps > 0) generate(arguments[3], steps);
    else run_calls(arguments[2], arguments[3]);
    return 0;
}
