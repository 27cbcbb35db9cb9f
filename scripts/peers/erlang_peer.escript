#!/usr/bin/env escript
%%! -noinput
%% A peer on Erlang's own {packet, 4}, which does all the framing here.
%%
%% client ADDR MANNER        sends the messages of the file $MESSAGES; MANNER is `whole`,
%%                           or `close` (closes without waiting)
%% server RECEIVED MANNER    serves one connection: sends each message back and keeps it
%%                           in the file RECEIVED; MANNER is `whole`
-mode(compile).

main(Arguments) ->
    try run(Arguments) of
        ok -> halt(0)
    catch
        _:Reason ->
            io:format(standard_error, "erlang_peer.escript: ~0p~n", [Reason]),
            halt(1)
    end.

%% exit_on_close is true by default, which closes the socket both ways when the other
%% side ends its half. This peer may still have replies to write then.
options() ->
    [binary, {packet, 4}, {active, false}, {nodelay, true},
     {exit_on_close, false}, {show_econnreset, true}].

run(["client", Address, Manner]) ->
    [Host, Port] = string:split(Address, ":", trailing),
    {ok, Data} = file:read_file(os:getenv("MESSAGES")),
    {ok, Socket} = gen_tcp:connect(Host, list_to_integer(Port), options()),
    ok = send_all(Socket, Data),
    case Manner of
        "close" ->
            ok;
        "whole" ->
            ok = gen_tcp:shutdown(Socket, write),
            case gen_tcp:recv(Socket, 0) of
                {error, closed} -> ok;
                Other -> throw({instead_of_the_end, Other})
            end
    end,
    ok = gen_tcp:close(Socket);
run(["server", Path, "whole"]) ->
    {ok, Listener} = gen_tcp:listen(0, [{ip, {127, 0, 0, 1}} | options()]),
    {ok, Port} = inet:port(Listener),
    io:format(standard_error, "listening on 127.0.0.1:~b~n", [Port]),
    {ok, Socket} = gen_tcp:accept(Listener),
    {ok, File} = file:open(Path, [write, raw, binary]),
    ok = echo(Socket, File),
    ok = file:close(File),
    ok = gen_tcp:close(Socket).

send_all(_, <<>>) ->
    ok;
send_all(Socket, Data) ->
    {ok, Message, Rest} = erlang:decode_packet(4, Data, []),
    ok = gen_tcp:send(Socket, Message),
    send_all(Socket, Rest).

echo(Socket, File) ->
    case gen_tcp:recv(Socket, 0) of
        {ok, Message} ->
            ok = file:write(File, [<<(byte_size(Message)):32>>, Message]),
            ok = gen_tcp:send(Socket, Message),
            echo(Socket, File);
        {error, closed} ->
            ok
    end.
