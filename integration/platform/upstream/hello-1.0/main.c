#include "mini.h"

#ifndef GREETING
#define GREETING "Hello"
#endif

int main(void)
{
    mini_say(GREETING);
    mini_say("unpatched");
    return mini_count() == 2 ? 0 : 1;
}
