/* Headlines that say when they were written: COUNT of them, at irregular intervals of up to MILLISECONDS. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    long count = atol(argv[1]), milliseconds = atol(argv[2]);

    srandom(1);
    for (long n = 0; n < count; n++) {
        struct timespec pause = {0, random() % milliseconds * 1000000 + 1}, now;
        char line[128];
        nanosleep(&pause, NULL);
        clock_gettime(CLOCK_REALTIME, &now);
        int used = snprintf(line, sizeof line, "\033[7m>>> stamp 1.0 %lld%09ld\033[27m\n", (long long)now.tv_sec, now.tv_nsec);
        if (write(1, line, used) != used)
            return 1;
    }
    return 0;
}
