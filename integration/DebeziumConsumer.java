import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.debezium.transforms.ExtractNewRecordState;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.Base64;
import java.util.HexFormat;
import java.util.Map;
import java.util.Objects;
import org.apache.kafka.connect.data.Field;
import org.apache.kafka.connect.data.SchemaAndValue;
import org.apache.kafka.connect.data.Struct;
import org.apache.kafka.connect.json.JsonConverter;
import org.apache.kafka.connect.sink.SinkRecord;

/**
 * What a sink of Kafka Connect sees of messages in Debezium's format, by Kafka's own JsonConverter and Debezium's own
 * ExtractNewRecordState.
 *
 * <p>Reads lines of topic, key and value, the latter two in base64 and "-" for none, with tabs between them. Writes a line
 * of JSON for each record that reaches the sink: its topic, key and row, each field with its type, what that means, and its
 * value as text; a row that went is null.
 */
public class DebeziumConsumer {
    private static final ObjectMapper JSON = new ObjectMapper();

    public static void main(String[] arguments) throws Exception {
        JsonConverter keys = new JsonConverter();
        JsonConverter values = new JsonConverter();
        keys.configure(Map.of("schemas.enable", true), true);
        values.configure(Map.of("schemas.enable", true), false);
        ExtractNewRecordState<SinkRecord> unwrap = new ExtractNewRecordState<>();
        unwrap.configure(Map.of("delete.tombstone.handling.mode", "tombstone"));
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] parts = line.split("\t");
            SchemaAndValue key = keys.toConnectData(parts[0], content(parts[1]));
            SchemaAndValue value = values.toConnectData(parts[0], content(parts[2]));
            SinkRecord record =
                    unwrap.apply(
                            new SinkRecord(parts[0], 0, key.schema(), key.value(), value.schema(), value.value(), 0));
            if (record != null) {
                ObjectNode found = JSON.createObjectNode().put("topic", record.topic());
                found.set("key", fields((Struct) record.key()));
                found.set("row", fields((Struct) record.value()));
                System.out.println(JSON.writeValueAsString(found));
            }
        }
    }

    private static byte[] content(String base64) {
        return base64.equals("-") ? null : Base64.getDecoder().decode(base64);
    }

    private static ObjectNode fields(Struct struct) {
        if (struct == null) {
            return null;
        }
        struct.validate();
        ObjectNode made = JSON.createObjectNode();
        for (Field field : struct.schema().fields()) {
            ArrayNode said = made.putArray(field.name());
            said.add(field.schema().type().getName()).add(field.schema().name());
            Object value = struct.get(field);
            said.add(value instanceof byte[] bytes ? HexFormat.of().formatHex(bytes) : Objects.toString(value, null));
        }
        return made;
    }
}
