defmodule NervesDockerPort.ProtocolTest do
  use ExUnit.Case, async: true

  alias NervesDockerPort.Protocol

  doctest Protocol

  @document Path.expand("../../../docs/protocol.md", __DIR__)

  # Words in these sections that the helper does not send: those that Mix sends, and the names of the operations.
  @not_sent ~w(answer terminal interactive build archive clean shell run copy at_terminal doctor volumes report all prune yes)a

  test "the vocabulary has every atom that the helper sends according to the document" do
    text = File.read!(@document)
    [_, from_helper] = String.split(text, "## Messages from the helper", parts: 2)
    [from_helper, to_helper] = String.split(from_helper, "## Messages to the helper", parts: 2)
    [_, values] = String.split(to_helper, "`value` on success", parts: 2)
    [values, _] = String.split(values, "### `{:answer", parts: 2)

    words =
      for part <- [from_helper, values],
          [code] <- Regex.scan(~r/`[^`\n]+`/, part),
          [_, atom, key] <-
            Regex.scan(~r/:([a-z]\w*)|\b([a-z]\w*):/, code <> " ") |> Enum.map(&pad/1),
          do: String.to_atom(atom <> key)

    assert length(words) > 50
    assert Enum.uniq(words) -- (Protocol.vocabulary() ++ @not_sent) == []
  end

  defp pad([all, atom]), do: [all, atom, ""]
  defp pad(match), do: match

  test "the example in bytes" do
    bytes = <<0x83, 0x68, 0x02, 0x77, 0x06, 0x63, 0x61, 0x6E, 0x63, 0x65, 0x6C, 0x61, 0x07>>
    assert Protocol.encode({:cancel, 7}) == bytes
    assert Protocol.decode(bytes) == {:ok, {:cancel, 7}}
    assert byte_size(bytes) == 0x0D
  end

  test "an encoded term is decoded to the same term" do
    term = %{"a" => [1, 1.5, nil, true, :ok, {"é", <<255>>}], 1 => ~c"charlist", [] => 2 ** 200}
    assert Protocol.decode(Protocol.encode(term)) == {:ok, term}
  end

  test "no damaged frame raises" do
    whole = Protocol.encode({:done, 1, {:ok, %{path: "/dl/a", size: 1.5, sha256: ["a", 2 ** 100]}}})

    for cut <- 0..(byte_size(whole) - 1) do
      assert {:error, text} = Protocol.decode(binary_part(whole, 0, cut))
      assert String.valid?(text)
    end

    :rand.seed(:exsss, {1, 2, 3})

    for _ <- 1..5_000 do
      place = :rand.uniform(byte_size(whole)) - 1
      rest = binary_part(whole, place + 1, byte_size(whole) - place - 1)
      broken = binary_part(whole, 0, place) <> <<:rand.uniform(256) - 1>> <> rest

      assert match?({:ok, _}, Protocol.decode(broken)) or
               match?({:error, _}, Protocol.decode(broken))
    end
  end
end
