defmodule NervesDockerPort.Protocol do
  @moduledoc """
  The terms that travel between Mix and the helper, and their bytes. `docs/protocol.md` is the contract.

  Knows nothing of ports or of what a message means.
  """

  @version 1
  @max_frame 16 * 1024 * 1024

  # Every atom that the helper may send. They have to be in the atom table before a frame is decoded with `:safe`; being
  # literals of this module, they are as soon as it is loaded.
  @vocabulary [
    # messages
    ~w(hello event ask done)a,
    # hello
    ~w(protocol version python os_pid)a,
    # events
    ~w(headline log stage started finished progress warning)a,
    # stages
    ~w(preflight pull build_image create_build make make_system copy clean shell check_tree)a,
    # progress
    ~w(what current total unit bytes layers files)a,
    # questions
    ~w(yes_no)a,
    # outcomes
    ~w(ok error code message hint log)a,
    # error codes
    ~w(engine_unreachable engine_permission engine_too_old engine_too_new image_unavailable image_build_failed)a,
    ~w(volume_busy step_failed out_of_memory disk_full no_network no_build_tree artifact_missing cancelled bad_request)a,
    ~w(protocol_mismatch internal)a,
    # values
    ~w(path size sha256 stages removed spec text json)a,
    [true, false, nil]
  ]

  @doc "The protocol's number, as in the helper's hello."
  @spec version() :: pos_integer()
  def version, do: @version

  @doc "Every atom that the helper may send."
  @spec vocabulary() :: [atom()]
  def vocabulary, do: List.flatten(@vocabulary)

  @doc """
  The bytes of one frame, without its length: the port writes that.

  Anything can be encoded; a term of more than 16 MiB is refused by the helper.

  ## Examples

      iex> NervesDockerPort.Protocol.encode({:cancel, 7})
      <<131, 104, 2, 119, 6, "cancel", 97, 7>>
  """
  @spec encode(term()) :: binary()
  def encode(term), do: :erlang.term_to_binary(term, minor_version: 2)

  @doc """
  The term in one frame, or in words why there is none.

  Never makes an atom, never inflates, never reads past the limit of 16 MiB.

  ## Examples

      iex> NervesDockerPort.Protocol.decode(<<131, 97, 7>>)
      {:ok, 7}

      iex> NervesDockerPort.Protocol.decode(<<131, 97, 7, 0>>)
      {:error, "1 byte too many after a term"}
  """
  @spec decode(binary()) :: {:ok, term()} | {:error, String.t()}
  def decode(frame) when byte_size(frame) > @max_frame do
    {:error, "a frame of #{byte_size(frame)} bytes, where #{@max_frame} are the most"}
  end

  def decode(<<131, 80, _rest::binary>>), do: {:error, "a compressed term"}

  def decode(frame) do
    case :erlang.binary_to_term(frame, [:safe, :used]) do
      {term, used} when used == byte_size(frame) -> {:ok, term}
      {_term, used} -> {:error, too_many(byte_size(frame) - used)}
    end
  rescue
    ArgumentError ->
      {:error, "bytes that are no term, or an atom outside the protocol's vocabulary"}
  end

  defp too_many(1), do: "1 byte too many after a term"
  defp too_many(count), do: "#{count} bytes too many after a term"
end
