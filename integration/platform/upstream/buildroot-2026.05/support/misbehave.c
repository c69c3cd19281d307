/* Writes output, or uses memory, as a difficult build may do; see the knobs in the Makefile. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WIDTH 100 /* bytes of a line, with its newline */

/* Each line contains its number. Every per_headline-th line is a headline like Buildroot's. */
static void lines(long count, long per_headline, int flush)
{
    char line[WIDTH + 1];
    static char buffer[1 << 16];

    setvbuf(stdout, buffer, flush ? _IOLBF : _IOFBF, sizeof buffer);
    memset(line, '.', sizeof line);
    for (long n = 1; n <= count; n++) {
        if (per_headline && n % per_headline == 0) {
            printf("\033[7m>>> flood 1.0 Building line %ld\033[27m\n", n);
            continue;
        }
        int used = sprintf(line, "line %ld ", n);
        line[used] = '.';
        line[WIDTH - 1] = '\n';
        fwrite(line, 1, WIDTH, stdout);
    }
}

static void oneline(long bytes)
{
    for (long n = 1; n < bytes; n++)
        putchar('x');
    putchar('\n');
}

static void garbage(void)
{
    fputs("latin-1: caf\xe9\n", stdout);
    fputs("\033[7m>>> caf\xe9 1.0 Building\033[27m\n", stdout);
    fputs("half a character: \xe2\x82\n", stdout);
    fputs("carriage returns: 10%\r20%\r100%\r\n", stdout);
    fwrite("zero: \0 byte\n", 1, 13, stdout);
}

static void hog(long mib)
{
    for (long n = 0; n < mib; n++) {
        char *block = malloc(1 << 20);
        if (!block)
            exit(4);
        memset(block, 1, 1 << 20);
    }
    printf("took %ld MiB\n", mib);
}

int main(int argc, char **argv)
{
    char *end = "";
    long number = argc > 2 ? strtol(argv[2], &end, 10) : 0;

    if (argc < 2)
        return 2;
    if (*end != '\0') {
        fprintf(stderr, "misbehave: '%s' is not a number\n", argv[2]);
        return 1;
    }
    if (!strcmp(argv[1], "lines"))
        lines(number, argc > 3 ? atol(argv[3]) : 0, argc > 4 && atoi(argv[4]));
    else if (!strcmp(argv[1], "oneline"))
        oneline(number);
    else if (!strcmp(argv[1], "garbage"))
        garbage();
    else if (!strcmp(argv[1], "hog"))
        hog(number);
    else
        return 2;
    return 0;
}
