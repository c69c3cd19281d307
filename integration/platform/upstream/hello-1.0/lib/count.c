#include "../mini.h"

extern int mini_lines;

int mini_count(void)
{
    return mini_lines;
}
