/* A full-screen menu like menuconfig: arrows or j/k move, space changes, s saves, q leaves.
 * It uses the same features of the terminal as menuconfig: raw keys, the size and its changes, the alternate screen. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

static const char *const items[] = {"BR2_MINI_LOUD", "BR2_MINI_COLOUR", "BR2_MINI_LEGAL"};
enum { ITEMS = sizeof items / sizeof *items };

static int chosen[ITEMS];
static int at;
static const char *note = "";
static volatile sig_atomic_t resized = 1;

static void on_resize(int number)
{
    (void)number;
    resized = 1;
}

static void draw(void)
{
    struct winsize size = {.ws_row = 24, .ws_col = 80};

    ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
    printf("\033[2J\033[H\033[7m%-*.*s\033[27m\r\n", size.ws_col, size.ws_col, " Mini Buildroot configuration");
    for (int n = 0; n < ITEMS; n++)
        printf("%s [%c] %s\033[27m\r\n", n == at ? "\033[7m" : "  ", chosen[n] ? '*' : ' ', items[n]);
    printf("\033[%d;1H%dx%d  arrows: move  space: change  s: save  q: leave  %s", size.ws_row, size.ws_col,
           size.ws_row, note);
    fflush(stdout);
}

static void load(const char *path)
{
    char line[256];
    FILE *file = fopen(path, "r");

    while (file && fgets(line, sizeof line, file))
        for (int n = 0; n < ITEMS; n++)
            if (!strncmp(line, items[n], strlen(items[n])) && !strcmp(line + strlen(items[n]), "=y\n"))
                chosen[n] = 1;
    if (file)
        fclose(file);
}

/* The other lines of the file stay as they are. */
static int save(const char *path)
{
    char line[256], name[4096];
    FILE *from = fopen(path, "r"), *to;

    snprintf(name, sizeof name, "%s.new", path);
    to = fopen(name, "w");
    if (!from || !to)
        return -1;
    while (fgets(line, sizeof line, from)) {
        int ours = 0;
        for (int n = 0; n < ITEMS; n++)
            ours |= !strncmp(line, items[n], strlen(items[n]));
        if (!ours)
            fputs(line, to);
    }
    for (int n = 0; n < ITEMS; n++)
        if (chosen[n])
            fprintf(to, "%s=y\n", items[n]);
    fclose(from);
    return fclose(to) || rename(name, path) ? -1 : 0;
}

int main(int argc, char **argv)
{
    struct termios before, raw;
    struct sigaction action = {.sa_handler = on_resize};
    char key;

    if (argc != 2 || tcgetattr(STDIN_FILENO, &before) || !isatty(STDOUT_FILENO)) {
        fputs("menuconfig needs a terminal\n", stderr);
        return 1;
    }
    load(argv[1]);
    raw = before;
    cfmakeraw(&raw);
    tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    sigaction(SIGWINCH, &action, NULL); /* without SA_RESTART, so that it ends the read below, and the screen is redrawn */
    fputs("\033[?1049h", stdout);
    for (;;) {
        draw();
        ssize_t got = read(STDIN_FILENO, &key, 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got != 1 || key == 'q' || key == 3)
            break;
        note = "";
        if (key == 'k' || key == 'A') /* the up arrow is ESC [ A; its last byte is enough */
            at = (at + ITEMS - 1) % ITEMS;
        else if (key == 'j' || key == 'B')
            at = (at + 1) % ITEMS;
        else if (key == ' ')
            chosen[at] = !chosen[at];
        else if (key == 's')
            note = save(argv[1]) ? "could not save" : "saved";
    }
    fputs("\033[?1049l", stdout);
    fflush(stdout);
    tcsetattr(STDIN_FILENO, TCSANOW, &before);
    return 0;
}
