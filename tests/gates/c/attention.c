/* Checkpoint 3 in C, from exported cases: reads inputs.safetensors of each case, writes attention_context.npy.
 *
 *     attention CASES/3 ANSWERS/3 [--without-mask]
 *
 * Only float32 exports: q_rotated [B,S,H,D], cache_k and cache_v [B,K,T,D], position_ids [B,S], key_positions [B,T].
 */
#include <dirent.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct {
    int shape[4];
    const char *data;
} Tensor;

static void fail(const char *what, const char *which) {
    fprintf(stderr, "attention: %s: %s\n", what, which);
    exit(2);
}

static char *read_file(const char *path) {
    FILE *f = fopen(path, "rb");
    if (!f) fail("cannot be opened", path);
    fseek(f, 0, SEEK_END);
    long size = ftell(f);
    rewind(f);
    char *bytes = malloc((size_t)size + 1);
    if (!bytes || fread(bytes, 1, (size_t)size, f) != (size_t)size) fail("cannot be read", path);
    bytes[size] = 0;
    fclose(f);
    return bytes;
}

/* The file begins with the length of a JSON header: {"name":{"dtype":"F32","shape":[2,6],"data_offsets":[0,48]},...} */
static Tensor find(const char *file, const char *name, const char *dtype) {
    uint64_t length;
    memcpy(&length, file, 8);
    const char *header = file + 8, *data = header + length;
    char key[64];
    snprintf(key, sizeof key, "\"%s\":", name);
    const char *entry = strstr(header, key);
    if (!entry || entry >= data) fail("no such tensor", name);
    const char *end = strchr(entry, '}');
    const char *type = strstr(entry, dtype), *shape = strstr(entry, "\"shape\":["), *at = strstr(entry, "\"data_offsets\":[");
    if (!type || type > end) fail("not of the expected type", name);
    if (!shape || !at) fail("no shape or offsets", name);
    Tensor found = {{1, 1, 1, 1}, data + strtoull(at + 16, NULL, 10)};
    char *p = (char *)shape + 9;
    for (int n = 0; n < 4 && *p != ']'; n++) {
        found.shape[n] = (int)strtol(p, &p, 10);
        if (*p == ',') p++;
    }
    return found;
}

static float f32(Tensor t, size_t i) {
    float x;
    memcpy(&x, t.data + 4 * i, 4);
    return x;
}

static int64_t i64(Tensor t, size_t i) {
    int64_t x;
    memcpy(&x, t.data + 8 * i, 8);
    return x;
}

static void write_npy(const char *path, const float *x, const int *shape) {
    char header[118];
    memset(header, ' ', sizeof header);
    int written = snprintf(header, sizeof header, "{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d, %d, %d), }",
                           shape[0], shape[1], shape[2], shape[3]);
    header[written] = ' ';
    header[117] = '\n';
    FILE *f = fopen(path, "wb");
    if (!f) fail("cannot be written", path);
    fwrite("\x93NUMPY\x01\x00\x76\x00", 1, 10, f);
    fwrite(header, 1, sizeof header, f);
    fwrite(x, 4, (size_t)shape[0] * shape[1] * shape[2] * shape[3], f);
    fclose(f);
}

static void attend(const char *input, const char *output, int use_mask) {
    char *file = read_file(input);
    Tensor q = find(file, "q_rotated", "F32"), k = find(file, "cache_k", "F32"), v = find(file, "cache_v", "F32");
    Tensor position = find(file, "position_ids", "I64"), key_position = find(file, "key_positions", "I64");
    int B = q.shape[0], S = q.shape[1], H = q.shape[2], D = q.shape[3], K = k.shape[1], T = k.shape[2];
    float *out = calloc((size_t)B * S * H * D, 4), *score = malloc((size_t)T * 4);
    for (int b = 0; b < B; b++)
        for (int s = 0; s < S; s++)
            for (int h = 0; h < H; h++) {
                size_t qi = ((size_t)(b * S + s) * H + h) * D, ki = (size_t)(b * K + h / (H / K)) * T * D;
                float top = -INFINITY, total = 0;
                for (int t = 0; t < T; t++) {
                    int64_t at = i64(key_position, (size_t)b * T + t);
                    int seen = !use_mask || (at >= 0 && at <= i64(position, (size_t)b * S + s));
                    float dot = 0;
                    for (int d = 0; d < D; d++) dot += f32(q, qi + d) * f32(k, ki + (size_t)t * D + d);
                    score[t] = seen ? dot / sqrtf((float)D) : -INFINITY;
                    if (score[t] > top) top = score[t];
                }
                for (int t = 0; t < T; t++) {
                    score[t] = score[t] == -INFINITY ? 0 : expf(score[t] - top);
                    total += score[t];
                }
                for (int t = 0; t < T && total > 0; t++)
                    for (int d = 0; d < D; d++) out[qi + d] += score[t] / total * f32(v, ki + (size_t)t * D + d);
            }
    write_npy(output, out, q.shape);
    free(out);
    free(score);
    free(file);
}

int main(int argc, char **argv) {
    if (argc < 3) fail("usage", "attention CASES/3 ANSWERS/3 [--without-mask]");
    int use_mask = argc < 4 || strcmp(argv[3], "--without-mask") != 0;
    DIR *cases = opendir(argv[1]);
    if (!cases) fail("no such folder", argv[1]);
    for (struct dirent *entry; (entry = readdir(cases));) {
        if (entry->d_name[0] == '.') continue;
        char input[4096], output[4096];
        snprintf(output, sizeof output, "%s/%s", argv[2], entry->d_name);
        mkdir(argv[2], 0777);
        mkdir(output, 0777);
        snprintf(input, sizeof input, "%s/%s/inputs.safetensors", argv[1], entry->d_name);
        snprintf(output, sizeof output, "%s/%s/attention_context.npy", argv[2], entry->d_name);
        attend(input, output, use_mask);
    }
    closedir(cases);
    return 0;
}
