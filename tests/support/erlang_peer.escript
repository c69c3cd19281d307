#!/usr/bin/env escript
%%! -noinput +t 1048576
%% The Erlang end of a {packet, 4} wire, for tests/support/erlang_peer.py. The first byte of a frame is a command, the rest
%% its argument, so that this works even where the wire under test does not. Answers begin with 0 (good) or 1 (not).
-mode(compile).

main([In, Out]) ->
    Port = open_port({fd, list_to_integer(In), list_to_integer(Out)}, [{packet, 4}, binary, eof]),
    loop(Port, undefined).

loop(Port, Kept) ->
    receive
        {Port, {data, <<Command, Argument/binary>>}} ->
            {Answer, Keep} =
                try command(Command, Argument, Kept)
                catch Class:Reason -> {[1, io_lib:format("~p: ~P", [Class, Reason, 20])], Kept}
                end,
            port_command(Port, Answer),
            loop(Port, Keep);
        {Port, eof} ->
            halt(0)
    end.

%% echo: decode and encode
command($E, Etf, Kept) ->
    {[0, to_binary(binary_to_term(Etf))], Kept};
%% generate: a list of random terms, kept to compare with
command($G, <<Seed:32, Count:32>>, _) ->
    rand:seed(exsss, Seed),
    Terms = [term(5) || _ <- lists:seq(1, Count)],
    {[0, to_binary(Terms)], Terms};
%% keep: whatever it is, to compare with
command($K, Etf, _) ->
    {[0], binary_to_term(Etf)};
%% compare with what was kept
command($C, Etf, Kept) ->
    {compare(binary_to_term(Etf), Kept), Kept};
%% are both readable, and the same? For input that Erlang may refuse.
command($S, <<Size:32, First:Size/binary, Second/binary>>, Kept) ->
    case {read(First), read(Second)} of
        {refused, _} -> {[0, "refused"], Kept};
        {_, refused} -> {[1, "only the second is refused"], Kept};
        {A, B} -> {compare(A, B), Kept}
    end.

read(Etf) ->
    try {ok, binary_to_term(Etf)} catch error:badarg -> refused end.

compare(Same, Same) -> [0];
compare([_ | _] = A, [_ | _] = B) when is_list(A), length(A) =:= length(B) ->
    [{X, Y} | _] = [{X, Y} || {X, Y} <- lists:zip(A, B), X =/= Y],
    [1, io_lib:format("got ~w, not ~w", [X, Y])];
compare(A, B) -> [1, io_lib:format("got ~w, not ~w", [A, B])].

to_binary(Term) -> term_to_binary(Term, [{minor_version, 2}]).

%% --- random terms --------------------------------------------------------------------------------

term(Depth) ->
    case rand:uniform(26) of
        N when N =< 14; Depth =< 0 -> leaf(rand:uniform(16));
        N when N =< 17 -> many(Depth);
        N when N =< 20 -> list_to_tuple(many(Depth));
        21 -> list_to_tuple(lists:seq(1, 250 + rand:uniform(20)));
        22 -> many(Depth) ++ leaf(rand:uniform(12));
        23 -> X = term(Depth - 1), fun() -> X end;
        _ -> maps:from_list([{key(Depth - 1), term(Depth - 1)} || _ <- lists:seq(1, rand:uniform(5))])
    end.

many(Depth) -> [term(Depth - 1) || _ <- lists:seq(1, rand:uniform(5))].

leaf(1) -> rand:uniform(256) - 1;
leaf(2) -> rand:uniform(1 bsl 33) - (1 bsl 32);
leaf(3) -> (rand:uniform(1 bsl 70) - (1 bsl 69)) * rand:uniform(1 bsl 70);
leaf(4) -> sign() * (1 bsl (2030 + rand:uniform(40)));
leaf(5) -> sign() * (rand:uniform(1 bsl 4096) bsl rand:uniform(4000));
leaf(6) -> float();
leaf(7) -> any_of([nil, true, false, undefined, null, '', 'Elixir.Nerves.Package']);
leaf(8) -> list_to_atom(text(any_of([3, 10, 255])));
leaf(9) -> unicode:characters_to_binary(text(40));
leaf(10) -> rand:bytes(rand:uniform(40) - 1);
leaf(11) -> any_of([{}, #{}, <<>>, 0.0, -1, 1 bsl 31, -(1 bsl 31), (1 bsl 31) - 1]);
leaf(12) -> any_of([self(), make_ref(), hd(erlang:ports()), fun lists:map/2, fun erlang:node/0]);
leaf(13) -> <<(rand:uniform(1 bsl 30)):(rand:uniform(30))>>;
leaf(14) -> [];
leaf(15) -> [rand:uniform(256) - 1 || _ <- lists:seq(1, rand:uniform(30))];
leaf(16) -> text(20).

%% Python tells 1, 1.0 and true apart nowhere in a key: no integers below 2, and no whole floats.
key(Depth) ->
    case rand:uniform(9) of
        1 -> rand:uniform(1 bsl 40) + 1;
        2 -> rand:uniform(1000) + 0.5;
        3 -> leaf(8);
        4 -> any_of([nil, undefined, ok, self(), make_ref(), <<1:3>>, [a | b], [], {}, #{}]);
        5 -> leaf(10);
        6 -> leaf(15);
        7 when Depth > 0 -> {key(Depth - 1), key(Depth - 1)};
        8 when Depth > 0 -> [key(Depth - 1), key(Depth - 1)];
        9 when Depth > 0 -> #{key(Depth - 1) => key(Depth - 1)};
        _ -> leaf(9)
    end.

float() ->
    case <<(rand:uniform(1 bsl 64) - 1):64>> of
        <<F:64/float>> -> F;
        _ -> float()
    end.

text(Max) -> [character() || _ <- lists:seq(1, rand:uniform(Max))].

character() ->
    case rand:uniform(4) of
        1 -> 127 + rand:uniform(128);
        2 -> 16#e000 + rand:uniform(16#1fff);
        3 -> 16#ffff + rand:uniform(16#fffff);
        4 -> 31 + rand:uniform(95)
    end.

sign() -> any_of([1, -1]).

any_of(List) -> lists:nth(rand:uniform(length(List)), List).
