/* Runs a fuzz target over stored inputs, with any compiler: `replay FOLDER...` passes each file of each folder through LLVMFuzzerTestOneInput, in a block of the file's exact
 * size, so that AddressSanitizer sees a read beyond it. */
#define _POSIX_C_SOURCE 200809L
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static int replay_file(const char *path, size_t n_bytes)
{
    FILE *file = fopen(path, "rb");
    uint8_t *data = malloc(n_bytes ? n_bytes : 1);
    int is_read = file && data && fread(data, 1, n_bytes, file) == n_bytes;

    if (is_read)
        LLVMFuzzerTestOneInput(data, n_bytes);
    else
        fprintf(stderr, "%s: cannot be read\n", path);
    if (file)
        fclose(file);
    free(data);
    return is_read;
}

/* The number of files replayed; -1: one could not be read. */
static int replay_folder(const char *folder)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;
    int n = 0;

    if (!dir) {
        fprintf(stderr, "%s: cannot be opened\n", folder);
        return -1;
    }
    while (n >= 0 && (entry = readdir(dir))) {
        char path[4096];
        struct stat info;

        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (stat(path, &info) == 0 && S_ISREG(info.st_mode))
            n = replay_file(path, (size_t)info.st_size) ? n + 1 : -1;
    }
    closedir(dir);
    return n;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        int n = replay_folder(argv[i]);

        if (n <= 0) {
            fprintf(stderr, "%s: nothing was replayed\n", argv[i]);
            return 1;
        }
        printf("%s: %d inputs\n", argv[i], n);
    }
    if (argc < 2)
        fprintf(stderr, "usage: %s FOLDER...\n", argv[0]);
    return argc < 2 ? 2 : 0;
}
