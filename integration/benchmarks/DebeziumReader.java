import io.debezium.engine.ChangeEvent;
import io.debezium.engine.DebeziumEngine;
import io.debezium.engine.format.Json;
import java.io.Reader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Properties;

/**
 * Debezium's embedded engine, which does nothing with events but count them, and ends with the batch in which there are as
 * many as wanted.
 *
 * <p>Arguments: a file of settings, the number of events.
 */
public class DebeziumReader {
    private static long seen = 0;

    public static void main(String[] arguments) throws Exception {
        Properties settings = new Properties();
        try (Reader file = Files.newBufferedReader(Path.of(arguments[0]))) {
            settings.load(file);
        }
        long wanted = Long.parseLong(arguments[1]);
        DebeziumEngine<ChangeEvent<String, String>> engine =
                DebeziumEngine.create(Json.class)
                        .using(settings)
                        .using((success, message, error) -> end(1, message + ": " + error))
                        .notifying(
                                (events, committer) -> {
                                    for (ChangeEvent<String, String> event : events) {
                                        committer.markProcessed(event);
                                    }
                                    committer.markBatchFinished();
                                    seen += events.size();
                                    if (seen >= wanted) {
                                        end(0, "");
                                    }
                                })
                        .build();
        engine.run();
    }

    /** At once: an engine that is asked to close takes seconds, which are not for the events. */
    private static void end(int status, String said) {
        System.err.println(said);
        Runtime.getRuntime().halt(status);
    }
}
