#include <stdio.h>

#include "../mini.h"

int mini_lines;

void mini_say(const char *text)
{
    printf("%s: %s\n", mini_version, text);
    mini_lines++;
}
